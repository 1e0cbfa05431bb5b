"""One download into the cache: resume, hash while writing, verify, publish.

Nothing is published unless size and digest are those of the descriptor, and
never more than the declared size plus one chunk is read.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from conforma.cache.disk import Key, LayerStore
from conforma.cache.follow import Sight
from conforma.cache.handles import SharedFile
from conforma.cache.integrity import SMALL
from conforma.cache.layers import UNKNOWN, Fetch
from conforma.cache.options import CacheOptions
from conforma.cache.singleflight import Flight
from conforma.cache.sink import CacheSink
from conforma.cache.space import Space
from conforma.cache.stats import Counters
from conforma.cache.turns import Produced
from conforma.errors import CacheUnusable, IntegrityError, SizeMismatch
from conforma.oci.digest import Hasher
from conforma.oci.manifest import Descriptor

# A shorter partial is not worth the file it occupies.
_WORTH_KEEPING: Final = 1 << 20
_PIECE: Final = 1 << 20


class Transfer:
    """Brings one blob from upstream into the store."""

    def __init__(
        self,
        store: LayerStore,
        options: CacheOptions,
        counters: Counters,
        space: Space,
    ) -> None:
        self._store = store
        self._options = options
        self._counters = counters
        self._space = space

    def run(
        self, descriptor: Descriptor, fetch: Fetch, flight: Flight[Produced[SharedFile]]
    ) -> Produced[SharedFile]:
        """The verified blob, published if the directory can take it.

        Raises what ``fetch`` raises, ``SizeMismatch``, ``DigestMismatch``,
        ``Abandoned``, and ``CacheUnusable`` if there is no room anywhere.
        """
        key = Key.of("blobs", descriptor.digest)
        # Looking for leftovers of what is small takes longer than fetching it again.
        resumable = self._store.writable and descriptor.size > SMALL
        leftovers = self._store.partials(key) if resumable else []
        if leftovers:
            try:
                return self._attempt(key, descriptor, fetch, flight, leftovers)
            except IntegrityError:
                pass  # the leftover was bad, or upstream is: from zero we shall know
        return self._attempt(key, descriptor, fetch, flight, [])

    def _attempt(
        self,
        key: Key,
        descriptor: Descriptor,
        fetch: Fetch,
        flight: Flight[Produced[SharedFile]],
        leftovers: list[Path],
    ) -> Produced[SharedFile]:
        what = f"blob {descriptor.digest}"
        sink = CacheSink(
            self._store, key, strict=self._options.strict, make_room=self._space.make_room
        )
        hasher = Hasher(descriptor.digest)
        try:
            self._take_over(leftovers, sink, hasher, descriptor.size, flight)
            if hasher.size < descriptor.size or descriptor.size <= 0:
                self._counters.add("transfers")
                self._download(fetch, sink, hasher, descriptor, flight, what)
            if descriptor.size not in (UNKNOWN, hasher.size):
                raise SizeMismatch(
                    f"{what}: got {hasher.size} bytes where {descriptor.size} were declared"
                )
            hasher.check(what)
            # It need not have its name yet to be read to its end.
            flight.show(Sight(sink.follow(), sink.size, verified=True), sink.size, final=True)
            # What is hashed whenever it is opened loses nothing but itself in a power failure;
            # a sync would wait for all that the layers beside it have written.
            durable = self._options.durable and hasher.size > SMALL
            handle = sink.publish(key, durable=durable)
        except (IntegrityError, CacheUnusable):
            sink.discard()
            raise
        except BaseException:
            if sink.size >= _WORTH_KEEPING:
                sink.keep()
            else:
                sink.discard()
            raise
        finally:
            sink.settle()
        if not sink.stored:
            return Produced(handle, "pass_through")
        self._counters.add("disk_bytes", handle.size)
        self._space.added(handle.size)
        return Produced(handle, "leaders")

    def _download(
        self,
        fetch: Fetch,
        sink: CacheSink,
        hasher: Hasher,
        descriptor: Descriptor,
        flight: Flight[Produced[SharedFile]],
        what: str,
    ) -> None:
        with fetch(hasher.size) as chunks:
            for chunk in chunks:
                flight.raise_if_abandoned()
                self._counters.add("network_bytes", len(chunk))
                if 0 <= descriptor.size < hasher.size + len(chunk):
                    raise SizeMismatch(
                        f"{what}: more bytes than the {descriptor.size} that were declared"
                    )
                hasher.update(chunk)
                sink.write(chunk)
                flight.show(Sight(sink.follow(), sink.size), sink.size)

    def _take_over(
        self,
        leftovers: list[Path],
        sink: CacheSink,
        hasher: Hasher,
        size: int,
        flight: Flight[Produced[SharedFile]],
    ) -> None:
        """Copy the longest leftover, hashing it, into our own file.

        It is copied, not continued in place: where locks do not exclude, its
        writer may be alive, and a partial has one writer for life (LC-18).
        """
        for number, path in enumerate(leftovers):
            if number == 0:
                with suppress(OSError):
                    self._copy(path, sink, hasher, size, flight)
            with suppress(OSError):
                self._store.files.unlink(path)
        if hasher.size:
            self._counters.add("resumed_bytes", hasher.size)

    def _copy(
        self,
        path: Path,
        sink: CacheSink,
        hasher: Hasher,
        size: int,
        flight: Flight[Produced[SharedFile]],
    ) -> None:
        descriptor = self._store.files.open(path)
        leftover = SharedFile(descriptor, size)
        while hasher.size < size:
            piece = leftover.read_at(hasher.size, min(_PIECE, size - hasher.size))
            if not piece:
                return
            hasher.update(piece)
            sink.write(piece)
            flight.show(Sight(sink.follow(), sink.size), sink.size)

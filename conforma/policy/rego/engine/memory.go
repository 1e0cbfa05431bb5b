// The memory limit. Go's own limit is soft: it collects harder and grows on.
// So the heap is watched: over the limit, evaluations are stopped; if that does
// not help, the process ends and says why by its exit status.
package main

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// exitOutOfMemory tells the parent that this process gave up over memory.
const exitOutOfMemory = 86

const patience = 3 * time.Second

// The heap may grow to this size before a collection is due, and always by
// oftenest percent of what is in use. A collection costs by what is in use, not
// by what it frees, so few that free much are cheap: while rules are compiled
// and small inputs judged they are far apart, and where large inputs fill the
// room it is they that set the peak, which is no higher for it.
const roomy = 272 << 20

const (
	oftenest  = 50
	seldomest = 1600
)

// collecting is how much the heap may grow, in percent of what is in use.
func collecting(live uint64) int {
	percent := (roomy - int64(live)) * 100 / int64(max(live, 1))
	return int(max(oftenest, min(seldomest, percent)))
}

type heapLimit uint64

// read returns the bytes that survived the last collection, and all bytes
// taken, garbage included.
func (heapLimit) read() (live, taken uint64) {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
	}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64()
}

// passed says whether evaluations have to be stopped now: what is in use is so
// near the limit that the collector would soon do nothing but run.
func (l heapLimit) passed() bool {
	live, taken := l.read()
	return live > uint64(l-l/4) || taken > uint64(l+l/4)
}

// lost says that nothing short of the end of the process helps.
func (l heapLimit) lost() bool {
	_, taken := l.read()
	return taken > uint64(l+l/2)
}

// watch calls relieve whenever the limit is passed, and giveUp when far more
// is taken or the relief does not come.
func (l heapLimit) watch(every time.Duration, relieve, giveUp func()) {
	debug.SetMemoryLimit(int64(l))
	percent := seldomest
	debug.SetGCPercent(percent)
	var since time.Time
	for range time.Tick(every) {
		live, _ := l.read()
		// Setting it stops the world, so small changes are not worth it.
		if wanted := collecting(live); wanted*4 < percent*3 || wanted*3 > percent*4 {
			percent = wanted
			debug.SetGCPercent(percent)
		}
		switch {
		case l.lost():
			giveUp()
		case !l.passed():
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
			relieve()
		case time.Since(since) > patience:
			giveUp()
		default:
			relieve()
		}
	}
}

func secondsToDuration(seconds float64) time.Duration {
	if seconds <= 0 || seconds > math.MaxInt64/float64(time.Second) {
		return math.MaxInt64
	}
	return time.Duration(seconds * float64(time.Second))
}

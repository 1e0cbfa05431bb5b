// Frames: two big-endian 32-bit lengths, a JSON header, and a body of plain
// bytes, so that large documents are never quoted inside JSON.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// protocolVersion is what both ends must agree on before the first request.
const protocolVersion = 2

const maxHeader = 64 << 20

type frameReader struct{ from io.Reader }

// next returns io.EOF at a clean end between two frames.
func (r *frameReader) next(header any) ([]byte, error) {
	var lengths [8]byte
	if _, err := io.ReadFull(r.from, lengths[:]); err != nil {
		return nil, err
	}
	headerLength := binary.BigEndian.Uint32(lengths[:4])
	if headerLength > maxHeader {
		return nil, fmt.Errorf("frame header of %d bytes is over the limit", headerLength)
	}
	text := make([]byte, headerLength)
	if _, err := io.ReadFull(r.from, text); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(lengths[4:]))
	if _, err := io.ReadFull(r.from, body); err != nil {
		return nil, err
	}
	return body, json.Unmarshal(text, header)
}

type frameWriter struct {
	mu sync.Mutex
	to io.Writer
}

func (w *frameWriter) send(header any, body []byte) error {
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	if uint64(len(body)) > 1<<32-1 {
		return fmt.Errorf("a message of %d bytes does not fit into a frame", len(body))
	}
	head := make([]byte, 8, 8+len(text))
	binary.BigEndian.PutUint32(head, uint32(len(text)))
	binary.BigEndian.PutUint32(head[4:], uint32(len(body)))
	head = append(head, text...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.to.Write(head); err != nil {
		return err
	}
	_, err = w.to.Write(body)
	return err
}

// encode is JSON without the HTML escapes of Go.
func encode(value any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return out.Bytes(), err
}

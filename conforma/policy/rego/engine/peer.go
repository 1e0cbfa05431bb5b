// The other end of the pipes, as an evaluation sees it: somebody who answers
// builtins and takes log lines.
package main

import (
	"context"
	"fmt"
	"sync"
)

// message is the header of every frame in both directions; each type uses the
// members it needs.
type message struct {
	Type       string            `json:"type"`
	ID         uint64            `json:"id,omitempty"`
	Protocol   int               `json:"protocol,omitempty"`
	OPA        string            `json:"opa,omitempty"`
	Ruleset    uint64            `json:"ruleset,omitempty"`
	PolicyDirs []string          `json:"policy_dirs,omitempty"`
	DataDirs   []string          `json:"data_dirs,omitempty"`
	Dir        string            `json:"dir,omitempty"`
	File       string            `json:"file,omitempty"`
	Row        int               `json:"row,omitempty"`
	Queries    []string          `json:"queries,omitempty"`
	Shared     map[string]uint64 `json:"shared,omitempty"`
	Overlay    bool              `json:"overlay,omitempty"`
	Split      int               `json:"split,omitempty"`
	Seconds    float64           `json:"seconds,omitempty"`
	Print      bool              `json:"print,omitempty"`
	Trace      bool              `json:"trace,omitempty"`
	Call       uint64            `json:"call,omitempty"`
	Name       string            `json:"name,omitempty"`
	Kind       string            `json:"kind,omitempty"`
	Level      string            `json:"level,omitempty"`
	Text       string            `json:"text,omitempty"`
	Fields     map[string]string `json:"fields,omitempty"`
	Args       []string          `json:"args,omitempty"`
	Failure    *failure          `json:"failure,omitempty"`
}

// answer is what the other end says to a builtin call.
type answer struct {
	kind string // "json", "text" or "undefined"
	body []byte
}

type peer struct {
	out   *frameWriter
	mu    sync.Mutex
	last  uint64
	calls map[uint64]chan answer
}

func newPeer(out *frameWriter) *peer {
	return &peer{out: out, calls: map[uint64]chan answer{}}
}

// call asks the other end for the value of a builtin and waits for it or for
// the end of the evaluation.
func (p *peer) call(ctx context.Context, evaluation uint64, name string, args []byte) (answer, error) {
	reply := make(chan answer, 1)
	p.mu.Lock()
	p.last++
	id := p.last
	p.calls[id] = reply
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.calls, id)
		p.mu.Unlock()
	}()
	if err := p.out.send(message{Type: "call", ID: evaluation, Call: id, Name: name}, args); err != nil {
		return answer{}, fmt.Errorf("call %s: %w", name, err)
	}
	select {
	case got := <-reply:
		return got, nil
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
}

// deliver hands an answer to the call that waits for it; one that comes after
// the evaluation has ended is dropped.
func (p *peer) deliver(id uint64, got answer) {
	p.mu.Lock()
	reply := p.calls[id]
	p.mu.Unlock()
	if reply != nil {
		reply <- got
	}
}

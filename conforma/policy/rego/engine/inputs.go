// Inputs: the documents that evaluations are about. A value that many of them
// hold is sent and read once, and only so much text is held parsed at a time.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"golang.org/x/sync/semaphore"
)

// Text takes some twenty times its room once it is parsed, and an evaluation
// that waits for a builtin keeps it. This much lets many ordinary inputs wait
// at once and few that carry large attestations.
const parsedAtOnce = 6 << 20

type room struct{ free *semaphore.Weighted }

func newRoom() room { return room{semaphore.NewWeighted(parsedAtOnce)} }

// enter waits until there is room for the text of an input, or for the end of
// the evaluation. An input that is larger than all the room is alone in it.
func (r room) enter(e *evaluation, size int) (leave func(), err error) {
	taken := int64(min(size, parsedAtOnce))
	if err := r.free.Acquire(e.ctx, taken); err != nil {
		return nil, e.cause(err)
	}
	return func() { r.free.Release(taken) }, nil
}

// sharedValue is read at its first use.
type sharedValue struct {
	once  sync.Once
	text  []byte
	value ast.Value
	err   error
}

func (v *sharedValue) get() (ast.Value, error) {
	v.once.Do(func() {
		v.value, v.err = ast.ValueFromReader(bytes.NewReader(v.text))
		v.text = nil
	})
	return v.value, v.err
}

// parseInput reads an input and puts the shared values in their places.
func parseInput(text []byte, shared map[string]*sharedValue) (ast.Value, error) {
	input, err := ast.ValueFromReader(bytes.NewReader(text))
	if err != nil || len(shared) == 0 {
		return input, err
	}
	object, ok := input.(ast.Object)
	if !ok {
		return nil, errors.New("only an object has room for shared values")
	}
	for name, one := range shared {
		value, err := one.get()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		object.Insert(ast.StringTerm(name), ast.NewTerm(value))
	}
	return object, nil
}

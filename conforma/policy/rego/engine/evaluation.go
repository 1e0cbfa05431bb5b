// One evaluation: one input, many queries in one session, so that what several
// rules share is computed once; with its own cancel, time and memory.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/print"
)

var (
	errMemory    = errors.New("the evaluation needs more memory than it may use")
	errTime      = errors.New("the evaluation takes longer than it may")
	errCancelled = errors.New("the evaluation was cancelled")
)

type evaluation struct {
	id        uint64
	peer      *peer
	ctx       context.Context
	stop      context.CancelCauseFunc
	cancel    topdown.Cancel
	cancelled atomic.Bool
	memo      map[string]*ast.Term // nil where several queries run at once
	budget    *budget
	turns     turns
	onTurn    bool
	query     string
}

type contextKey struct{}

func evaluationOf(ctx context.Context) *evaluation {
	if ctx != nil {
		if e, ok := ctx.Value(contextKey{}).(*evaluation); ok {
			return e
		}
	}
	return sideChannel
}

// sideChannel answers builtins where there is no evaluation of ours: under
// OPA's own command line.
var sideChannel *evaluation

func newEvaluation(parent context.Context, id uint64, p *peer, limit time.Duration) *evaluation {
	ctx, stop := context.WithCancelCause(parent)
	e := &evaluation{id: id, peer: p, stop: stop, cancel: topdown.NewCancel(), memo: map[string]*ast.Term{}}
	e.ctx = context.WithValue(ctx, contextKey{}, e)
	context.AfterFunc(ctx, e.cancel.Cancel)
	e.budget = newBudget(limit, func() { stop(errTime) })
	return e
}

// cause says why an evaluation that failed was stopped, if it was.
func (e *evaluation) cause(err error) error {
	if why := context.Cause(e.ctx); err != nil && why != nil {
		return why
	}
	return err
}

// ask passes a builtin call to the other end; the time spent waiting for it
// does not count against the evaluation.
func (e *evaluation) ask(name string, args []byte) (answer, error) {
	if e.budget != nil {
		e.budget.pause()
		defer e.budget.resume()
	}
	e.leave()
	got, err := e.peer.call(e.ctx, e.id, name, args)
	if ended := e.enter(); ended != nil {
		return answer{}, ended
	}
	return got, err
}

func (e *evaluation) log(level, text string, fields map[string]string) {
	_ = e.peer.out.send(message{Type: "log", ID: e.id, Level: level, Text: text, Fields: fields}, nil)
}

type request struct {
	queries []string
	overlay ast.Object
	input   ast.Value
	print   bool
	trace   bool
}

// run answers all queries, in order, as a JSON array with, for each query, the
// array of the values of its solutions.
func (e *evaluation) run(rules *ruleset, asked request) ([]byte, error) {
	defer e.budget.pause()
	e.budget.resume()
	view := rules.data.with(asked.overlay)
	shared := topdown.NewVirtualCache()
	now := time.Now()
	var out bytes.Buffer
	out.WriteByte('[')
	for i, query := range asked.queries {
		if i > 0 {
			out.WriteByte(',')
		}
		e.query = query
		prepared, err := rules.prepared(e.ctx, query)
		if err != nil {
			return nil, fmt.Errorf("query %s: %w", query, err)
		}
		options := []rego.EvalOption{
			rego.EvalParsedInput(asked.input),
			rego.EvalTransaction(view),
			rego.EvalVirtualCache(shared),
			rego.EvalTime(now),
			rego.EvalSortSets(true),
			rego.EvalExternalCancel(e.cancel),
			rego.EvalInterQueryBuiltinValueCache(rules.values),
		}
		if asked.print {
			options = append(options, rego.EvalPrintHook(e))
		}
		tracer := topdown.NewBufferTracer()
		if asked.trace {
			options = append(options, rego.EvalQueryTracer(tracer))
		}
		results, err := prepared.Eval(e.ctx, options...)
		if asked.trace {
			e.sendTrace(*tracer)
		}
		if err != nil {
			return nil, err
		}
		if err := writeSolutions(&out, results); err != nil {
			return nil, err
		}
	}
	out.WriteByte(']')
	return out.Bytes(), nil
}

func writeSolutions(out *bytes.Buffer, results rego.ResultSet) error {
	values := []any{}
	for _, result := range results {
		for _, expression := range result.Expressions {
			values = append(values, expression.Value)
		}
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(values)
}

// Print forwards what a policy prints, with the place that prints it.
func (e *evaluation) Print(where print.Context, text string) error {
	place := ""
	if where.Location != nil {
		place = fmt.Sprintf("%v: ", where.Location)
	}
	return e.peer.out.send(message{Type: "print", ID: e.id, Name: e.query}, []byte(place+text))
}

func (e *evaluation) sendTrace(events []*topdown.Event) {
	var text strings.Builder
	topdown.PrettyTrace(&text, events)
	_ = e.peer.out.send(message{Type: "trace", ID: e.id, Name: e.query}, []byte(text.String()))
}

// budget is a clock that runs only while the engine itself works.
type budget struct {
	mu      sync.Mutex
	left    time.Duration
	started time.Time
	timer   *time.Timer
	spent   func()
}

func newBudget(limit time.Duration, spent func()) *budget {
	return &budget{left: limit, spent: spent}
}

func (b *budget) resume() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer == nil {
		b.started = time.Now()
		b.timer = time.AfterFunc(b.left, b.spent)
	}
}

func (b *budget) pause() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
		b.left -= time.Since(b.started)
	}
}

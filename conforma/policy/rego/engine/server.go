// The server: requests from stdin, each on its own goroutine, answers to stdout
// in whatever order they are ready.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/open-policy-agent/opa/v1/version"
)

type server struct {
	peer *peer
	ctx  context.Context

	mu       sync.Mutex
	rulesets map[uint64]*ruleset
	shared   map[uint64]*sharedValue
	running  map[uint64]*evaluation
	turns    turns
	room     room

	// alone is held by an evaluation that is run again by itself because the
	// memory limit was reached while several ran.
	alone sync.RWMutex
}

// serve works until stdin ends. Ctrl-C reaches the whole process group; it is
// the parent that decides what it means.
func serve(in io.Reader, out io.Writer) int {
	signal.Ignore(os.Interrupt, syscall.SIGQUIT, syscall.SIGHUP)
	endWithParent(time.Second)
	cutNetwork()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	s := &server{
		peer:     newPeer(&frameWriter{to: out}),
		ctx:      ctx,
		rulesets: map[uint64]*ruleset{},
		shared:   map[uint64]*sharedValue{},
		running:  map[uint64]*evaluation{},
		turns:    newTurns(),
		room:     newRoom(),
	}
	if limit, err := strconv.ParseInt(os.Getenv("CONFORMA_ENGINE_MEMORY"), 10, 64); err == nil && limit > 0 {
		heap := heapLimit(limit)
		go heap.watch(10*time.Millisecond, func() { s.relieve(heap.passed) }, func() { os.Exit(exitOutOfMemory) })
	}
	_ = s.peer.out.send(message{Type: "hello", Protocol: protocolVersion, OPA: version.Version}, nil)
	frames := &frameReader{from: bufio.NewReaderSize(in, 1<<16)}
	for {
		var asked message
		body, err := frames.next(&asked)
		if errors.Is(err, io.EOF) {
			return 0
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "conforma-opa:", err)
			return 1
		}
		s.handle(asked, body)
	}
}

// cutNetwork covers what capabilities do not: the JSON schema functions fetch
// references with the default client whatever hosts are allowed.
func cutNetwork() {
	http.DefaultClient = &http.Client{Transport: refusal{}}
}

type refusal struct{}

func (refusal) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("policies have no access to the network")
}

func (s *server) handle(asked message, body []byte) {
	switch asked.Type {
	case "answer":
		s.peer.deliver(asked.Call, answer{kind: asked.Kind, body: body})
	case "cancel":
		s.mu.Lock()
		found := s.running[asked.ID]
		s.mu.Unlock()
		if found != nil {
			found.cancelled.Store(true)
			found.stop(errCancelled)
		}
	case "release":
		s.mu.Lock()
		delete(s.rulesets, asked.ID)
		s.mu.Unlock()
	case "share":
		// No answer: evaluations that need it come later.
		s.mu.Lock()
		s.shared[asked.ID] = &sharedValue{text: body}
		s.mu.Unlock()
	case "compile":
		go s.guarded(asked.ID, func() { s.compile(asked, body) })
	case "inspect":
		go s.guarded(asked.ID, func() { s.inspect(asked) })
	case "describe":
		go s.guarded(asked.ID, func() { s.describe(asked) })
	case "evaluate":
		// Registered before the next frame is read, so that a cancel that
		// follows at once finds it.
		e := s.register(asked)
		go s.guarded(asked.ID, func() { s.evaluate(e, asked, body) })
	default:
		s.fail(asked.ID, &failure{Kind: "internal", Message: "unknown request " + strconv.Quote(asked.Type)})
	}
}

// guarded turns a crash inside OPA into the failure of one request.
func (s *server) guarded(id uint64, work func()) {
	defer func() {
		if crash := recover(); crash != nil {
			fmt.Fprintf(os.Stderr, "conforma-opa: %v\n%s", crash, debug.Stack())
			s.fail(id, &failure{Kind: "internal", Message: fmt.Sprint(crash)})
		}
	}()
	work()
}

func (s *server) fail(id uint64, why *failure) {
	_ = s.peer.out.send(message{Type: "error", ID: id, Failure: why}, nil)
}

func (s *server) compile(asked message, document []byte) {
	made, failed := compileRuleset(s.ctx, asked.PolicyDirs, asked.DataDirs, document)
	if failed != nil {
		s.fail(asked.ID, failed)
		return
	}
	s.mu.Lock()
	s.rulesets[asked.ID] = made
	s.mu.Unlock()
	_ = s.peer.out.send(message{Type: "result", ID: asked.ID}, nil)
}

func (s *server) inspect(asked message) {
	rules, err := inspectDir(asked.Dir)
	if err != nil {
		s.fail(asked.ID, newFailure("compile", err))
		return
	}
	s.reply(asked.ID, rules)
}

func (s *server) describe(asked message) {
	s.mu.Lock()
	rules := s.rulesets[asked.Ruleset]
	s.mu.Unlock()
	if rules == nil {
		s.fail(asked.ID, &failure{Kind: "internal", Message: fmt.Sprintf("unknown ruleset %d", asked.Ruleset)})
		return
	}
	details, err := rules.details(asked.File, asked.Row)
	if err != nil {
		s.fail(asked.ID, &failure{Kind: "internal", Message: err.Error()})
		return
	}
	s.reply(asked.ID, details)
}

func (s *server) reply(id uint64, value any) {
	text, err := encode(value)
	if err != nil {
		s.fail(id, &failure{Kind: "internal", Message: err.Error()})
		return
	}
	_ = s.peer.out.send(message{Type: "result", ID: id}, text)
}

func (s *server) register(asked message) *evaluation {
	e := newEvaluation(s.ctx, asked.ID, s.peer, secondsToDuration(asked.Seconds))
	e.turns = s.turns
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := s.running[asked.ID]; last != nil && last.cancelled.Load() {
		e.stop(errCancelled)
	}
	s.running[asked.ID] = e
	return e
}

func (s *server) unregister(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.running[id]; e != nil {
		e.stop(nil)
		delete(s.running, id)
	}
}

// relieve stops every evaluation: whose fault it is cannot be told while they
// share a heap. Each is then run again alone, and one that still does not fit
// is the culprit. The need is looked at again under the lock that a new
// evaluation takes, so that none pays for the garbage of the last.
func (s *server) relieve(needed func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !needed() {
		return
	}
	for _, e := range s.running {
		e.stop(errMemory)
	}
}

func (s *server) evaluate(e *evaluation, asked message, body []byte) {
	defer s.unregister(asked.ID)
	result, err := s.together(e, asked, body)
	if errors.Is(err, errMemory) {
		result, err = s.byItself(asked, body)
	}
	if err != nil {
		s.fail(asked.ID, evaluationFailure(err))
		return
	}
	_ = s.peer.out.send(message{Type: "result", ID: asked.ID}, result)
}

func (s *server) together(e *evaluation, asked message, body []byte) ([]byte, error) {
	s.alone.RLock()
	defer s.alone.RUnlock()
	return s.attempt(e, asked, body)
}

func (s *server) byItself(asked message, body []byte) ([]byte, error) {
	s.alone.Lock()
	defer s.alone.Unlock()
	debug.FreeOSMemory()
	result, err := s.attempt(s.register(asked), asked, body)
	if err != nil {
		debug.FreeOSMemory()
	}
	return result, err
}

func (s *server) attempt(e *evaluation, asked message, body []byte) ([]byte, error) {
	rules, shared, err := s.named(asked)
	if err != nil {
		return nil, err
	}
	leave, err := s.room.enter(e, len(body))
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	wanted := request{queries: asked.Queries, print: asked.Print, trace: asked.Trace}
	if asked.Overlay {
		if wanted.overlay, err = parseObject(body[:asked.Split]); err != nil {
			return nil, fmt.Errorf("data: %w", err)
		}
	}
	if wanted.input, err = parseInput(body[asked.Split:], shared); err != nil {
		return nil, fmt.Errorf("input: %w", err)
	}
	result, err := e.run(rules, wanted)
	return result, e.cause(err)
}

// named finds what a request refers to by its keys.
func (s *server) named(asked message) (*ruleset, map[string]*sharedValue, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rules := s.rulesets[asked.Ruleset]
	if rules == nil {
		return nil, nil, fmt.Errorf("unknown ruleset %d", asked.Ruleset)
	}
	shared := make(map[string]*sharedValue, len(asked.Shared))
	for name, key := range asked.Shared {
		if shared[name] = s.shared[key]; shared[name] == nil {
			return nil, nil, fmt.Errorf("unknown shared value %d", key)
		}
	}
	return rules, shared, nil
}

func evaluationFailure(err error) *failure {
	switch {
	case errors.Is(err, errMemory):
		return newFailure("memory", err)
	case errors.Is(err, errTime):
		return newFailure("time", err)
	case errors.Is(err, errCancelled):
		return newFailure("cancelled", err)
	}
	return newFailure("evaluate", err)
}

package main

import (
	"context"
	"errors"
	"testing"
	"time"
)

func evaluationWith(shared turns) *evaluation {
	e := newEvaluation(context.Background(), 1, nil, time.Minute)
	e.turns = shared
	return e
}

func TestAnEvaluationWaitsForItsTurn(t *testing.T) {
	shared := make(turns, 1)
	first, second := evaluationWith(shared), evaluationWith(shared)
	if err := first.enter(); err != nil {
		t.Fatal(err)
	}
	entered := make(chan error)
	go func() { entered <- second.enter() }()
	select {
	case <-entered:
		t.Fatal("two evaluations compute where there is one turn")
	default:
	}
	first.leave()
	if err := <-entered; err != nil {
		t.Fatal(err)
	}
	second.leave()
	if len(shared) != 0 {
		t.Fatal("a turn was not given back")
	}
}

func TestTheEndOfAnEvaluationEndsItsWaitAndTakesNobodysTurn(t *testing.T) {
	shared := make(turns, 1)
	first, second := evaluationWith(shared), evaluationWith(shared)
	if err := first.enter(); err != nil {
		t.Fatal(err)
	}
	second.stop(errCancelled)
	if err := second.enter(); !errors.Is(err, errCancelled) {
		t.Fatalf("waited on, or for another reason: %v", err)
	}
	second.leave()
	if len(shared) != 1 {
		t.Fatal("a turn that was another's was given away")
	}
}

func TestTheCollectorRunsMoreOftenTheMoreIsInUse(t *testing.T) {
	for live, percent := range map[uint64]int{
		0:         seldomest,
		roomy / 4: 300,
		roomy / 2: 100,
		roomy:     oftenest,
		2e9:       oftenest,
	} {
		if got := collecting(live); got != percent {
			t.Errorf("%d bytes in use: %d, not %d", live, got, percent)
		}
	}
}

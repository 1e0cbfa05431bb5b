package main

import (
	"context"
	"errors"
	"testing"
	"time"
)

func evaluationOfItsOwn() *evaluation {
	return newEvaluation(context.Background(), 1, nil, time.Minute)
}

func TestLargeInputsWaitForRoomAndSmallOnesDoNot(t *testing.T) {
	shared := newRoom()
	leave, err := shared.enter(evaluationOfItsOwn(), parsedAtOnce-10)
	if err != nil {
		t.Fatal(err)
	}
	small, err := shared.enter(evaluationOfItsOwn(), 10)
	if err != nil {
		t.Fatal(err)
	}
	small()
	entered := make(chan error)
	go func() {
		after, err := shared.enter(evaluationOfItsOwn(), 11)
		if err == nil {
			after()
		}
		entered <- err
	}()
	select {
	case <-entered:
		t.Fatal("more text is held than there is room for")
	default:
	}
	leave()
	if err := <-entered; err != nil {
		t.Fatal(err)
	}
}

func TestAnInputLargerThanTheRoomIsAloneInIt(t *testing.T) {
	shared := newRoom()
	leave, err := shared.enter(evaluationOfItsOwn(), 10*parsedAtOnce)
	if err != nil {
		t.Fatal(err)
	}
	if shared.free.TryAcquire(1) {
		t.Fatal("it shares the room")
	}
	leave()
	if !shared.free.TryAcquire(parsedAtOnce) {
		t.Fatal("the room was not given back")
	}
}

func TestTheEndOfAnEvaluationEndsItsWaitForRoom(t *testing.T) {
	shared := newRoom()
	if _, err := shared.enter(evaluationOfItsOwn(), parsedAtOnce); err != nil {
		t.Fatal(err)
	}
	waiting := evaluationOfItsOwn()
	waiting.stop(errMemory)
	if _, err := shared.enter(waiting, 1); !errors.Is(err, errMemory) {
		t.Fatalf("ended for another reason: %v", err)
	}
}

package main

import (
	"runtime"
	"testing"
	"time"
)

func TestTheWatchRelievesAndGivesUpOnlyWhenNeeded(t *testing.T) {
	relieved, gaveUp := make(chan struct{}, 1), make(chan struct{}, 1)
	tell := func(c chan struct{}) func() {
		return func() {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
	ballast := make([]byte, 96<<20)
	runtime.GC()
	go heapLimit(80<<20).watch(time.Millisecond, tell(relieved), tell(gaveUp))
	<-relieved
	if len(gaveUp) > 0 {
		t.Error("gave up although relief was not yet tried")
	}
	more := make([]byte, 64<<20)
	<-gaveUp
	runtime.KeepAlive(ballast)
	runtime.KeepAlive(more)
}

func TestTheBudgetRunsOnlyBetweenResumeAndPause(t *testing.T) {
	spent := make(chan struct{})
	b := newBudget(50*time.Millisecond, func() { close(spent) })
	b.resume()
	b.pause()
	left := b.left
	if left <= 0 || left > 50*time.Millisecond {
		t.Fatalf("left after a pause: %v", left)
	}
	b.pause()
	if b.left != left {
		t.Fatalf("a second pause took %v", left-b.left)
	}
	b.resume()
	<-spent
}

// Turns: as many evaluations compute at a time as there are processors. More
// would take memory and end no sooner. One that waits for the other end to
// answer a builtin gives its turn to another.
package main

import "runtime"

type turns chan struct{}

func newTurns() turns { return make(turns, runtime.GOMAXPROCS(0)) }

// enter waits for the evaluation's turn, or for its end. Where there are no
// turns it is always one's turn.
func (e *evaluation) enter() error {
	if e.turns == nil {
		return nil
	}
	select {
	case e.turns <- struct{}{}:
		e.onTurn = true
		return nil
	case <-e.ctx.Done():
		return e.cause(e.ctx.Err())
	}
}

// leave gives the turn to another, if it is the evaluation's turn.
func (e *evaluation) leave() {
	if e.onTurn {
		e.onTurn = false
		<-e.turns
	}
}

// What went wrong, with file, row and column where there are any.
package main

import (
	"errors"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/loader"
	"github.com/open-policy-agent/opa/v1/topdown"
)

type failure struct {
	// Kind is one of "compile", "data", "evaluate", "cancelled", "memory",
	// "time", "internal".
	Kind     string    `json:"kind"`
	Message  string    `json:"message"`
	Problems []problem `json:"problems,omitempty"`
}

type problem struct {
	File    string `json:"file"`
	Row     int    `json:"row"`
	Column  int    `json:"column"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

func newFailure(kind string, err error) *failure {
	return &failure{Kind: kind, Message: err.Error(), Problems: problemsOf(err)}
}

func problemsOf(err error) []problem {
	var found []problem
	add := func(code, text string, at *ast.Location) {
		p := problem{Code: code, Message: text}
		if at != nil {
			p.File, p.Row, p.Column = at.File, at.Row, at.Col
		}
		found = append(found, p)
	}
	var many ast.Errors
	var loading loader.Errors
	var one *ast.Error
	var evaluating *topdown.Error
	switch {
	case errors.As(err, &many):
		for _, e := range many {
			add(e.Code, e.Message, e.Location)
		}
	case errors.As(err, &loading):
		for _, e := range loading {
			found = append(found, problemsOf(e)...)
		}
	case errors.As(err, &one):
		add(one.Code, one.Message, one.Location)
	case errors.As(err, &evaluating):
		add(evaluating.Code, evaluating.Message, evaluating.Location)
	}
	return found
}

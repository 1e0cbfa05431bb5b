package main

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestFramesArriveAsTheyWereSent(t *testing.T) {
	var pipe bytes.Buffer
	writer := &frameWriter{to: &pipe}
	bodies := [][]byte{nil, []byte("plain \x00 bytes <&>"), bytes.Repeat([]byte("x"), 1<<20)}
	for i, body := range bodies {
		if err := writer.send(message{Type: "answer", Call: uint64(i)}, body); err != nil {
			t.Fatal(err)
		}
	}
	reader := &frameReader{from: &pipe}
	for i, body := range bodies {
		var got message
		read, err := reader.next(&got)
		if err != nil || got.Call != uint64(i) || !bytes.Equal(read, body) {
			t.Fatalf("frame %d: call %d, %d bytes, %v", i, got.Call, len(read), err)
		}
	}
	if _, err := reader.next(&message{}); !errors.Is(err, io.EOF) {
		t.Fatalf("at the end: %v", err)
	}
}

func TestAFrameCutShortIsNoCleanEnd(t *testing.T) {
	var pipe bytes.Buffer
	if err := (&frameWriter{to: &pipe}).send(message{Type: "answer"}, []byte("body")); err != nil {
		t.Fatal(err)
	}
	cut := bytes.NewReader(pipe.Bytes()[:pipe.Len()-1])
	if _, err := (&frameReader{from: cut}).next(&message{}); err == nil || errors.Is(err, io.EOF) {
		t.Fatalf("a cut frame gave %v", err)
	}
}

func TestAHeaderOverTheLimitIsRefusedUnread(t *testing.T) {
	huge := bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	if _, err := (&frameReader{from: huge}).next(&message{}); err == nil {
		t.Fatal("no error")
	}
}

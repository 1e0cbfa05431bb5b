package main

import (
	"context"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
)

func object(t *testing.T, text string) ast.Object {
	t.Helper()
	made, err := parseObject([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestAnOverlayReplacesMembersAndLeavesTheRest(t *testing.T) {
	base := documents{root: object(t, `{"a": {"x": 1, "y": 2}, "b": [1], "c": 3}`)}
	seen := base.with(object(t, `{"a": {"x": 9}, "b": {"n": 1}, "d": 4}`))
	want := object(t, `{"a": {"x": 9, "y": 2}, "b": {"n": 1}, "c": 3, "d": 4}`)
	if seen.root.Compare(want) != 0 {
		t.Fatalf("overlaid: %v", seen.root)
	}
	if base.root.Compare(object(t, `{"a": {"x": 1, "y": 2}, "b": [1], "c": 3}`)) != 0 {
		t.Fatalf("the documents themselves changed: %v", base.root)
	}
}

func TestReadingFindsWhatIsThereAndSaysWhatIsNot(t *testing.T) {
	data := documents{root: object(t, `{"a": [{"x": 1}, 2], "1": "one"}`)}
	for path, want := range map[string]string{"/a/0/x": "1", "/a/1": "2", "/1": `"one"`} {
		got, err := data.Read(context.Background(), data.with(nil), storage.MustParsePath(path))
		if err != nil || got.(ast.Value).String() != want {
			t.Errorf("%s: %v, %v", path, got, err)
		}
	}
	for _, path := range []string{"/b", "/a/2", "/a/x", "/1/x"} {
		_, err := data.Read(context.Background(), data.with(nil), storage.MustParsePath(path))
		if !storage.IsNotFound(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

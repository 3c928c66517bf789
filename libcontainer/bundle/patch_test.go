package bundle

import (
	"bytes"
	stdjson "encoding/json"
	"strconv"
	"strings"
	"testing"
)

// patch returns a copy of document with edits, each "POINTER VALUE" with VALUE in
// JSON, or "POINTER -" to remove a member. Missing parents are made, as objects. A
// pointer that ends in "/-" appends.
func patch(tb testing.TB, document []byte, edits ...string) []byte {
	tb.Helper()
	tree := parseTree(tb, document)
	for _, e := range edits {
		pointer, raw, ok := strings.Cut(e, " ")
		if !ok {
			tb.Fatalf("edit %q has no value", e)
		}
		var tokens []string
		for _, t := range strings.Split(pointer, "/")[1:] {
			tokens = append(tokens, strings.ReplaceAll(strings.ReplaceAll(t, "~1", "/"), "~0", "~"))
		}
		tree = edit(tb, tree, tokens, raw)
	}
	var b bytes.Buffer
	enc := stdjson.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(tree); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func parseTree(tb testing.TB, document []byte) any {
	tb.Helper()
	var tree any
	dec := stdjson.NewDecoder(bytes.NewReader(document))
	dec.UseNumber()
	if err := dec.Decode(&tree); err != nil {
		tb.Fatal(err)
	}
	return tree
}

func edit(tb testing.TB, node any, tokens []string, raw string) any {
	tb.Helper()
	if len(tokens) == 0 {
		return stdjson.RawMessage(raw)
	}
	switch n := node.(type) {
	case []any:
		if tokens[0] == "-" {
			return append(n, stdjson.RawMessage(raw))
		}
		i, err := strconv.Atoi(tokens[0])
		if err != nil || i >= len(n) {
			tb.Fatalf("no entry %q", tokens[0])
		}
		n[i] = edit(tb, n[i], tokens[1:], raw)
		return n
	case map[string]any:
		if len(tokens) == 1 && raw == "-" {
			delete(n, tokens[0])
			return n
		}
		child := n[tokens[0]]
		if child == nil && len(tokens) > 1 {
			child = map[string]any{}
		}
		n[tokens[0]] = edit(tb, child, tokens[1:], raw)
		return n
	}
	tb.Fatalf("no member %q", tokens[0])
	return nil
}

// escaped makes a pointer's token.
func escaped(s string) string {
	return at("", s)
}

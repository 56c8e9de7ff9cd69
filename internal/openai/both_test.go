package openai_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os/exec"
	"testing"

	"tollgate/internal/metertest"
	"tollgate/internal/openai"
)

// errorBodies are pieces of what stands in front of an engine may say.
var errorBodies = []string{
	`{`, `}`, `[`, `]`, `,`, `:`, `"detail"`, `"error"`, `"message"`, `"msg"`, `"loc"`, `"Not Found."`, `""`, `"a\u00e9\n\"\u0001"`, `"\ud83d\ude00"`,
	`"\ud83d"`, `null`, `true`, `0`, `-1.5e3`, `01`, ` `, "\n", `{"msg":"Field required"}`, `{"detail":"Not Found"}`, `[{"msg":"x"},null]`, `[{"msg":1}]`, `{"error":{"message":"m"}}`, "\xff",
}

// errorBody is one that often is JSON.
func errorBody(r *rand.Rand) []byte {
	piece := func() string { return errorBodies[r.IntN(len(errorBodies))] }
	var b []byte
	if r.IntN(3) == 0 {
		for range r.IntN(8) {
			b = append(b, piece()...)
		}
		return b
	}
	b = append(b, '{')
	for i, name := range []string{`"detail":`, `"error":`, `"message":`} {
		if r.IntN(2) == 0 {
			if i > 0 && len(b) > 1 {
				b = append(b, ',')
			}
			b = append(append(b, name...), piece()...)
		}
	}
	return append(b, '}')
}

// TestBothReshapeAlike gives error bodies to Reshape and to its port for the meter
// inside Envoy.
func TestBothReshapeAlike(t *testing.T) {
	feed := exec.CommandContext(context.WithoutCancel(t.Context()), metertest.Feed(t), "errors")
	in, err := feed.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := feed.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := feed.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(); _ = feed.Wait() }()
	r := rand.New(rand.NewPCG(rand.Uint64(), 3))
	changed := 0
	for range 30_000 {
		status, anthropic, body := 300+r.IntN(300), r.IntN(2), errorBody(r)
		ep := openai.ChatCompletions
		if anthropic == 1 {
			ep = openai.Messages
		}
		want, ok := openai.Reshape(ep, status, body)
		frame := binary.LittleEndian.AppendUint32(nil, uint32(status))
		frame = binary.LittleEndian.AppendUint32(frame, uint32(anthropic))
		frame = binary.LittleEndian.AppendUint32(frame, uint32(len(body)))
		if _, err := in.Write(append(frame, body...)); err != nil {
			t.Fatal(err)
		}
		var size [4]byte
		if _, err := io.ReadFull(out, size[:]); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, binary.LittleEndian.Uint32(size[:]))
		if _, err := io.ReadFull(out, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%d %q: this package %q, the meter %q", status, body, want, got)
		}
		if ok {
			changed++
		}
	}
	if changed < 5000 {
		t.Errorf("only %d of 30,000 were changed: the generator says too little", changed)
	}
}

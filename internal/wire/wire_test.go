package wire_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"tollgate/internal/wire"
)

func TestFieldsComeOneAfterTheOther(t *testing.T) {
	var message []byte
	message = protowire.AppendBytes(protowire.AppendTag(message, 1, protowire.BytesType), []byte("text"))
	message = protowire.AppendVarint(protowire.AppendTag(message, 2, protowire.VarintType), 300)
	message = protowire.AppendFixed64(protowire.AppendTag(message, 3, protowire.Fixed64Type), 7)
	message = protowire.AppendBytes(protowire.AppendTag(message, 4, protowire.BytesType), nil)
	var got []wire.Field
	if err := wire.Each(message, func(f wire.Field) error {
		got = append(got, f)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := []wire.Field{{Num: 1, Bytes: []byte("text")}, {Num: 2, Varint: 300}, {Num: 3}, {Num: 4, Bytes: []byte{}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for other, num := range map[int]int{9: 2, 1: 1, 4: 2} {
		if f, err := wire.Find(message, 2, other); err != nil || f.Num != num {
			t.Errorf("find 2 or %d: %+v, %v", other, f, err)
		}
	}
	if f, err := wire.Find(message, 8, 9); err != nil || f.Num != 0 {
		t.Errorf("find what is not there: %+v, %v", f, err)
	}
}

func TestABrokenMessageIsMalformed(t *testing.T) {
	for name, message := range map[string][]byte{
		"a tag without a field": {0x0a},
		"a field cut short":     {0x0a, 5, 'a'},
		"an endless varint":     {0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"field number 0":        {0x02, 0},
		"a group without end":   {0x0b},
	} {
		if err := wire.Each(message, func(wire.Field) error { return nil }); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		if f, err := wire.Find(message, 8, 9); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
		if _, _, err := wire.Entry(message); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s as an entry: %v", name, err)
		}
		if err := wire.Strings(message, func(_, _ []byte) {}); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s as a struct: %v", name, err)
		}
	}
}

func TestStringsOfAStruct(t *testing.T) {
	s, err := structpb.NewStruct(map[string]any{
		"text": "a", "empty": "", "number": 1.5, "yes": true, "none": nil, "list": []any{"b"}, "inner": map[string]any{"text": "c"},
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := proto.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	if err := wire.Strings(raw, func(name, value []byte) {
		if value != nil {
			got[string(name)] = string(value)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"text": "a", "empty": ""}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	inner := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte("chunk"))
	inner = protowire.AppendVarint(protowire.AppendTag(inner, 2, protowire.VarintType), 1)
	message := protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), inner)
	var into struct {
		body []byte
		end  bool
	}
	n := testing.AllocsPerRun(100, func() {
		f, err := wire.Find(message, 4, 5)
		if err == nil {
			err = wire.Each(f.Bytes, func(f wire.Field) error {
				switch f.Num {
				case 1:
					into.body = f.Bytes
				case 2:
					into.end = f.Varint != 0
				}
				return nil
			})
		}
		if err != nil {
			panic(err)
		}
	})
	if n != 0 || string(into.body) != "chunk" || !into.end {
		t.Errorf("%v allocations; read %+v", n, into)
	}
}

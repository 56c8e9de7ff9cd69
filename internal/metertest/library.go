package metertest

import (
	"bytes"
	"debug/elf"
	enc "encoding/binary"
	"testing"
)

// Library is the least that is a shared object with one symbol.
func Library(tb testing.TB, machine elf.Machine, symbol string) []byte {
	tb.Helper()
	names := []byte("\x00" + symbol + "\x00")
	symbols := []elf.Sym64{{}, {Name: 1, Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC), Shndx: 1, Value: 1}}
	const head, size, entry = 64, 24, 64
	dynsym := elf.Section64{Type: uint32(elf.SHT_DYNSYM), Off: head, Size: uint64(len(symbols) * size), Link: 2, Entsize: size}
	dynstr := elf.Section64{Type: uint32(elf.SHT_STRTAB), Off: dynsym.Off + dynsym.Size, Size: uint64(len(names))}
	h := elf.Header64{
		Type: uint16(elf.ET_DYN), Machine: uint16(machine), Version: 1, Ehsize: head, Shentsize: entry, Shnum: 3,
		Shoff: dynstr.Off + dynstr.Size, Shstrndx: 2,
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	var out bytes.Buffer
	for _, part := range []any{h, symbols, names, elf.Section64{}, dynsym, dynstr} {
		if err := enc.Write(&out, enc.LittleEndian, part); err != nil {
			tb.Fatal(err)
		}
	}
	return out.Bytes()
}

package config_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"tollgate/internal/config"
)

func TestMissingFileIsWrittenOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "config.yaml")
	cfg, created, err := config.LoadOrCreate(path, true)
	if err != nil || !created {
		t.Fatalf("first: created %v, %v", created, err)
	}
	if !cfg.VLLM.AutoStart || cfg.VLLM.LaunchMode != "simulated" {
		t.Errorf("got %v and %q, want the simulated engine", cfg.VLLM.AutoStart, cfg.VLLM.LaunchMode)
	}
	const mine = "listen: 127.0.0.1:9999\n"
	if err := os.WriteFile(path, []byte(mine), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, created, err = config.LoadOrCreate(path, true)
	if err != nil || created || cfg.Listen != "127.0.0.1:9999" {
		t.Errorf("second: created %v, %v", created, err)
	}
	if got, _ := os.ReadFile(path); string(got) != mine {
		t.Errorf("the file was changed to %q", got)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
}

func TestBrokenFileIsNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte("listen: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, created, err := config.LoadOrCreate(path, false)
	problems(t, err)
	if got, _ := os.ReadFile(path); created || string(got) != "listen: [\n" {
		t.Errorf("created %v, file %q", created, got)
	}
}

func TestOnlyOneOfManyCreatesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 8 {
		wg.Go(func() {
			_, created, err := config.LoadOrCreate(path, false)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if created {
				won++
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("created by %d, want 1", won)
	}
}

func TestPathsThatAreNoFileHaveAClearError(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                          "is a directory",
		fifo:                         "is not a regular file",
		loop:                         "cannot be read: too many levels",
		filepath.Join(dir, "nope"):   "does not exist",
		filepath.Join(fifo, "child"): "cannot be read: not a directory",
	} {
		_, err := config.Load(path)
		if ps := problems(t, err); !strings.HasPrefix(ps[0].Message, want) || ps[0].File != path {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
	if _, err := config.Load(filepath.Join(dir, "nope")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: got %v, want fs.ErrNotExist", err)
	}
	if _, _, err := config.LoadOrCreate(filepath.Join(fifo, "child"), false); err == nil {
		t.Error("a file below a file was created")
	}
}

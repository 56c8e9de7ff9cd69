package envoy

import "testing"

func TestConnectionsLeaveRoomForEngines(t *testing.T) {
	for files, want := range map[int64]int64{
		0: 50000, 1 << 20: 50000, 65536: 32672, 4096: 1952, 1024: 416, 64: 16,
	} {
		got := MaxConnections(files)
		if got != want {
			t.Errorf("%d descriptors: %d connections, want %d", files, got, want)
		}
		if files >= 1024 && 2*got+ownFiles > files {
			t.Errorf("%d connections, as many to engines and Envoy's own do not fit into %d", got, files)
		}
	}
}

func TestTheHeapIsWhatWasSaidOrAQuarter(t *testing.T) {
	for _, c := range []struct {
		mib          int
		memory, want int64
	}{{0, 16 << 30, 4 << 30}, {700, 16 << 30, 700 << 20}, {0, 0, 256 << 20}, {0, 512 << 20, 256 << 20}} {
		if got := maxHeap(c.mib, c.memory); got != c.want {
			t.Errorf("%d MiB of %d: %d, want %d", c.mib, c.memory, got, c.want)
		}
	}
}

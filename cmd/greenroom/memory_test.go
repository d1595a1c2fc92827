package main

import "testing"

func TestTheMemoryLimitLeavesRoomForGarbage(t *testing.T) {
	for live := int64(0); live < 4<<30; live += 8 << 20 {
		limit := memoryLimit(live)
		if limit < leastMem || limit-live < roomMem {
			t.Errorf("%d MiB in use leave %d MiB for garbage", live>>20, (limit-live)>>20)
		}
		if live > leastMem && limit > 2*live {
			t.Errorf("%d MiB in use may become %d MiB", live>>20, limit>>20)
		}
	}
}

package refusal

import "sync"

// queue is what waits to be counted, in order; never longer than maxPending. The
// zero value is empty.
type queue[T any] struct {
	mu      sync.Mutex
	waiting []T
	spare   []T // memory of the ones before
}

// put adds a copy of x, where there is room, and gives how many waited before.
func (q *queue[T]) put(x *T) int {
	q.mu.Lock()
	n := len(q.waiting)
	if n < maxPending {
		q.waiting = append(q.waiting, *x)
	}
	q.mu.Unlock()
	return n
}

// take has count look at all that waits. One goroutine at a time does.
func (q *queue[T]) take(count func(*T)) {
	q.mu.Lock()
	taken := q.waiting
	q.waiting = q.spare
	q.mu.Unlock()
	for i := range taken {
		count(&taken[i])
	}
	clear(taken)
	q.mu.Lock()
	q.spare = taken[:0]
	q.mu.Unlock()
}

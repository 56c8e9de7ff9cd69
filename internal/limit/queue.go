package limit

// node is a place in a [queue], embedded in what is queued.
type node[T any] struct {
	owner      *T
	prev, next *node[T]
}

// queued reports whether the node is in a queue.
func (n *node[T]) queued() bool { return n.next != nil }

// queue is a first-in-first-out list whose members can leave from anywhere in
// constant time. What enters last expires last, so the front is always the
// next to expire. The zero value is empty.
type queue[T any] struct {
	root node[T]
}

// push appends owner by its node, which must not be queued.
func (q *queue[T]) push(n *node[T], owner *T) {
	if q.root.next == nil {
		q.root.next, q.root.prev = &q.root, &q.root
	}
	n.owner = owner
	n.prev, n.next = q.root.prev, &q.root
	n.prev.next, q.root.prev = n, n
}

// remove takes a node out; one that is not queued is left alone.
func (q *queue[T]) remove(n *node[T]) {
	if !n.queued() {
		return
	}
	n.prev.next, n.next.prev = n.next, n.prev
	n.prev, n.next = nil, nil
}

// front returns the oldest member, nil when there is none.
func (q *queue[T]) front() *T {
	if q.root.next == nil || q.root.next == &q.root {
		return nil
	}
	return q.root.next.owner
}

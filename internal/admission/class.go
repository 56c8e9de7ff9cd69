package admission

import (
	"tollgate/internal/alias"
	"tollgate/internal/placement"
)

// Class says what a route consumes.
type Class uint8

// The classes of routes.
const (
	// Open routes need no key and consume the address rate only: /health.
	Open Class = iota
	// Admin routes need an admin key and consume the address rate only.
	Admin
	// Engines routes need an admin key or a launcher's, and consume the address rate only.
	Engines
	// Own routes need any key and consume the address rate only: what a key may know
	// of itself, also when it has nothing left.
	Own
	// Listing routes consume a request, no slot and no tokens: the model list.
	Listing
	// Counting routes consume a request and a slot, no tokens: tokenize.
	Counting
	// Inference routes consume everything.
	Inference
)

// Catalog knows the models that the engines serve.
type Catalog interface {
	// Model returns the context length of a served name in tokens (0 = unknown)
	// and whether the name may be asked for.
	Model(name string) (maxLen int64, ok bool)
	// Names lists the served names, in no order. Only refusals ask for it.
	Names() []string
	// Ready reports whether at least one engine can answer.
	Ready() bool
	// Only is the address of the engine when there is exactly one, else "".
	Only() string
}

// Roster says which engines may take a request. It must not block.
type Roster interface {
	// Serving appends the ready engines that serve a model to list.
	Serving(model string, list []placement.Engine) []placement.Engine
	// Listed reports whether an engine has listed the model, ready now or not.
	Listed(model string) bool
}

// Placing is how requests find their model and their engine; the zero value knows
// no aliases and leaves the choice of the engine to the proxy.
type Placing struct {
	Aliases *alias.Table
	Engines Roster // nil: one engine serves everything
	Placer  *placement.Placer
}

package usage

// node names a place in a document that the meter reads. Everything else is
// [unreadNode].
type node uint8

const (
	unreadNode node = iota

	// The top level, by format.
	chunkNode         // chat, completions and pooling; events and bodies
	responseEventNode // responses: an event
	responseBodyNode  // responses: a body, and "response" inside an event
	messageEventNode  // messages: an event
	messageBodyNode   // messages: a body
	messageNode       // messages: "message" inside message_start
	freeNode

	errorNode
	fingerprintNode // "system_fingerprint" of a chunk
	typeNode        // the name of an event
	statusNode      // the status of a response

	// Text.
	choicesNode
	choiceNode
	indexNode
	finishNode
	deltaNode // "delta" or "message" of a choice
	callsNode
	callNode
	functionNode
	blockDeltaNode // "delta" of a messages event
	blocksNode     // "content" of a messages body, and of an output item
	blockNode
	outputNode
	itemNode
	textNode
	reasoningNode
	oldReasoningNode // older names of the same text beside the new one

	// Usage.
	chatUsageNode
	responseUsageNode
	messageUsageNode
	promptDetailsNode
	completionDetailsNode
	countNode // the first of the counts, which are in the order of field
	promptNode
	completionNode
	cachedNode
	reasoningCountNode
	createdNode

	nodes
)

// kind is the JSON type that a node should have.
type kind uint8

const (
	anyKind kind = iota
	objectKind
	arrayKind
	stringKind
)

// link is a key of an object and what it leads to.
type link struct {
	key  string
	node node
}

// shape is what a document needs to know of a node.
type shape struct {
	kind    kind
	element node   // of an array
	keys    []link // of an object
	scalar  bool   // its number or literal is wanted
	usage   bool   // it is a usage object
	typed   bool   // nothing but its kind and null makes sense
	text    uint8  // the kind of text that it is, plus one
}

// shapes has the shape of every node. The same names mean different things in
// different formats, so each has its own.
var shapes = [nodes]shape{
	chunkNode: {kind: objectKind, keys: []link{
		{"choices", choicesNode}, {"usage", chatUsageNode}, {"error", errorNode}, {"system_fingerprint", fingerprintNode},
	}},
	responseEventNode: {kind: objectKind, keys: []link{
		{"type", typeNode}, {"delta", textNode}, {"response", responseBodyNode}, {"error", errorNode},
	}},
	responseBodyNode: {kind: objectKind, keys: []link{
		{"usage", responseUsageNode}, {"status", statusNode}, {"output", outputNode}, {"error", errorNode},
	}},
	messageEventNode: {kind: objectKind, keys: []link{
		{"type", typeNode}, {"delta", blockDeltaNode}, {"message", messageNode}, {"usage", messageUsageNode}, {"error", errorNode},
	}},
	messageBodyNode: {kind: objectKind, keys: []link{
		{"type", typeNode}, {"content", blocksNode}, {"usage", messageUsageNode}, {"error", errorNode},
	}},
	messageNode: {kind: objectKind, keys: []link{{"usage", messageUsageNode}}},
	freeNode:    {kind: objectKind, keys: []link{{"error", errorNode}}},

	errorNode:  {scalar: true},
	typeNode:   {kind: stringKind},
	statusNode: {kind: stringKind},

	choicesNode: {kind: arrayKind, element: choiceNode, scalar: true, typed: true},
	choiceNode: {kind: objectKind, keys: []link{
		{"index", indexNode}, {"delta", deltaNode}, {"finish_reason", finishNode}, {"text", textNode}, {"message", deltaNode},
	}},
	indexNode:  {scalar: true},
	finishNode: {kind: stringKind},
	deltaNode: {kind: objectKind, keys: []link{
		{"content", textNode},
		{"reasoning", reasoningNode},
		{"reasoning_content", oldReasoningNode},
		{"refusal", textNode},
		{"tool_calls", callsNode},
		{"function_call", functionNode},
	}},
	callsNode:        {kind: arrayKind, element: callNode},
	callNode:         {kind: objectKind, keys: []link{{"function", functionNode}}},
	functionNode:     {kind: objectKind, keys: []link{{"arguments", textNode}}},
	blockDeltaNode:   {kind: objectKind, keys: []link{{"text", textNode}, {"thinking", textNode}, {"partial_json", textNode}}},
	blocksNode:       {kind: arrayKind, element: blockNode},
	blockNode:        {kind: objectKind, keys: []link{{"text", textNode}, {"thinking", textNode}}},
	outputNode:       {kind: arrayKind, element: itemNode},
	itemNode:         {kind: objectKind, keys: []link{{"content", blocksNode}}},
	textNode:         {kind: stringKind, text: plainText + 1},
	reasoningNode:    {kind: stringKind, text: reasoningText + 1},
	oldReasoningNode: {kind: stringKind, text: oldReasoningText + 1},

	chatUsageNode: {kind: objectKind, scalar: true, usage: true, typed: true, keys: []link{
		{"prompt_tokens", promptNode},
		{"completion_tokens", completionNode},
		{"prompt_tokens_details", promptDetailsNode},
		{"completion_tokens_details", completionDetailsNode},
	}},
	responseUsageNode: {kind: objectKind, scalar: true, usage: true, typed: true, keys: []link{
		{"input_tokens", promptNode},
		{"output_tokens", completionNode},
		{"input_tokens_details", promptDetailsNode},
		{"output_tokens_details", completionDetailsNode},
	}},
	messageUsageNode: {kind: objectKind, scalar: true, usage: true, typed: true, keys: []link{
		{"input_tokens", promptNode},
		{"output_tokens", completionNode},
		{"cache_read_input_tokens", cachedNode},
		{"cache_creation_input_tokens", createdNode},
	}},
	promptDetailsNode:     {kind: objectKind, scalar: true, typed: true, keys: []link{{"cached_tokens", cachedNode}}},
	completionDetailsNode: {kind: objectKind, scalar: true, typed: true, keys: []link{{"reasoning_tokens", reasoningCountNode}}},
	promptNode:            {scalar: true},
	completionNode:        {scalar: true},
	cachedNode:            {scalar: true},
	reasoningCountNode:    {scalar: true},
	createdNode:           {scalar: true},
}

// child returns the node that key leads to inside in.
func child(in node, key []byte) node {
	links := shapes[in].keys
	for i := range links {
		if l := &links[i]; len(l.key) == len(key) && l.key == string(key) {
			return l.node
		}
	}
	return unreadNode
}

// root returns the top level of an answer's documents.
func root(o Options) node {
	switch o.Format {
	case Responses:
		if o.SSE {
			return responseEventNode
		}
		return responseBodyNode
	case Messages:
		if o.SSE {
			return messageEventNode
		}
		return messageBodyNode
	case Free:
		return freeNode
	case Chat, Completions, Pooling:
	}
	return chunkNode
}

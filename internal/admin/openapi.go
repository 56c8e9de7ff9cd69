package admin

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"github.com/goccy/go-yaml"
)

//go:embed openapi.yaml
var openapi []byte

// openapiJSON is the OpenAPI document of the operations as JSON.
var openapiJSON = sync.OnceValues(func() ([]byte, error) {
	var doc map[string]any
	if err := yaml.Unmarshal(openapi, &doc); err != nil {
		return nil, fmt.Errorf("read OpenAPI document: %w", err)
	}
	out, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("write OpenAPI document: %w", err)
	}
	return out, nil
})

func (a *API) document(w http.ResponseWriter, _ *http.Request) {
	doc, err := openapiJSON()
	if err != nil { // the tests read it
		a.broken(w, "cannot read its own document", err)
		return
	}
	writeBytes(w, http.StatusOK, doc)
}

package openai_test

import (
	"testing"

	"tollgate/internal/openai"
)

func TestForeignErrorsGetTheShapeThatClientsRead(t *testing.T) {
	const route = " Its model may not support this route."
	for _, tt := range []struct {
		ep         openai.Endpoint
		status     int
		body, want string // want is "" where the body stays
	}{
		{openai.Embeddings, 404, `{"detail":"Not Found"}`, `{"error":{"message":"The model server answered: Not Found.` + route + `","type":"invalid_request_error","param":null,"code":"not_found"}}`},
		{openai.Messages, 404, `{"detail": "Not Found"}`, `{"type":"error","error":{"type":"not_found_error","message":"The model server answered: Not Found.` + route + `"}}`},
		{openai.Embeddings, 405, `{"detail":"Method Not Allowed"}`, `{"error":{"message":"The model server answered: Method Not Allowed.` + route + `","type":"invalid_request_error","param":null,"code":"method_not_allowed"}}`},
		{openai.ChatCompletions, 422, `{"detail":[{"loc":["body"],"msg":"Field required"}]}`, `{"error":{"message":"The model server answered: Field required.","type":"invalid_request_error","param":null,"code":"invalid_request"}}`},
		{openai.ChatCompletions, 401, `{"error":"Unauthorized"}`, `{"error":{"message":"The model server answered: Unauthorized.","type":"invalid_request_error","param":null,"code":"invalid_request"}}`},
		{openai.ChatCompletions, 503, `{"error":"scaling"}`, `{"error":{"message":"The model server answered: scaling.","type":"server_error","param":null,"code":"engine_unavailable"}}`},
		{openai.ChatCompletions, 500, `{}`, `{"error":{"message":"The model server answered: Internal Server Error.","type":"server_error","param":null,"code":"engine_unavailable"}}`},
		{openai.ChatCompletions, 404, `{"error":{"message":"The model does not exist.","code":404}}`, ""},
		{openai.Messages, 404, `{"type":"error","error":{"type":"not_found_error","message":"x"}}`, ""},
		{openai.ChatCompletions, 502, `Bad Gateway`, ""},
		{openai.ChatCompletions, 500, `[1]`, ""},
		{openai.ChatCompletions, 500, `null`, ""},
		{openai.ChatCompletions, 500, ``, ""},
	} {
		got, changed := openai.Reshape(tt.ep, tt.status, []byte(tt.body))
		if string(got) != tt.want || changed != (tt.want != "") {
			t.Errorf("%s %d: got %s, want %s", tt.body, tt.status, got, tt.want)
		}
	}
}

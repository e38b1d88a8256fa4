package control

import (
	_ "embed"
	"encoding/json"
	"net/http"
)

// openAPI describes the API to programs (OpenAPI 3.0). A test holds it against
// the table of calls, and every answer in the tests of this package against it.
//
//go:embed openapi.json
var openAPI []byte

func (s *Server) getOpenAPI(http.ResponseWriter, *http.Request) (any, error) {
	return json.RawMessage(openAPI), nil
}

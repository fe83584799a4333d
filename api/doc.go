// Package api is the HTTP transport: it authenticates, decodes strictly, calls
// the core, and turns what the core answers into JSON. openapi.yaml is the
// contract; types and routes (api.gen.go) are generated from it. The pages of
// package console are served beside it, and are no part of it. It decides
// nothing: who may do what is the core's business, and so is the audit.
//
// Nothing here keeps a secret longer than the request that brought it, and no
// error or log line holds one: what a body contains is never quoted.
package api

//go:generate go run github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2 --config oapi-codegen.yaml openapi.yaml
//go:generate sh -c "sha256sum openapi.yaml oapi-codegen.yaml api.gen.go > api.gen.sum"

package client

// BasePathV2 is where the API of The Things Join Server begins on a server, which
// its own clients speak. It is described under BasePathV2/openapi.json.
const BasePathV2 = "/api/v2"

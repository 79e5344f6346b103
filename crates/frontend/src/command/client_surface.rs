use std::net::SocketAddr;

use forebay_runtime::command::Surface;

/// Where clients are served, as the user is told of it.
pub fn client_surface(address: SocketAddr) -> Surface<'static> {
    Surface {
        scheme: "http",
        address,
        guard: "without authentication",
        offers: &[
            "POST /v1/chat/completions  /v1/completions",
            "GET  /v1/models  /health  /live  /ready  /metrics  /openapi.json",
        ],
    }
}

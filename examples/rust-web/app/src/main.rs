//! A small service with some state: the stones of a quarry.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::RwLock;
use tower_http::trace::TraceLayer;

#[derive(Clone, Serialize, Deserialize)]
struct Stone {
    kind: String,
    weight: u32,
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("there is no stone {0}")]
    Unknown(String),
    #[error("a stone of {0} kg cannot be lifted")]
    Heavy(u32),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::Heavy(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        (status, Json(serde_json::json!({ "error": self.to_string() }))).into_response()
    }
}

type Quarry = Arc<RwLock<BTreeMap<String, Stone>>>;

async fn all(State(quarry): State<Quarry>) -> Json<BTreeMap<String, Stone>> {
    Json(quarry.read().await.clone())
}

async fn one(
    State(quarry): State<Quarry>,
    Path(name): Path<String>,
) -> Result<Json<Stone>, Refusal> {
    let stone = quarry.read().await.get(&name).cloned();
    stone.map(Json).ok_or(Refusal::Unknown(name))
}

async fn add(
    State(quarry): State<Quarry>,
    Path(name): Path<String>,
    Json(stone): Json<Stone>,
) -> Result<StatusCode, Refusal> {
    if stone.weight > 500 {
        return Err(Refusal::Heavy(stone.weight));
    }
    tracing::info!(name, stone.kind, stone.weight, "added");
    quarry.write().await.insert(name, stone);
    Ok(StatusCode::CREATED)
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    tracing_subscriber::fmt().with_ansi(false).init();
    let quarry = Quarry::default();
    let first = Stone { kind: "granite".to_owned(), weight: 120 };
    quarry.write().await.insert("hearting".to_owned(), first);
    let service = Router::new()
        .route("/", get(all))
        .route("/{name}", get(one).put(add))
        .layer(TraceLayer::new_for_http())
        .with_state(quarry);
    let listener = tokio::net::TcpListener::bind(("0.0.0.0", 8090)).await?;
    let mut ended = signal(SignalKind::terminate())?;
    let stopped = async move {
        ended.recv().await;
    };
    axum::serve(listener, service).with_graceful_shutdown(stopped).await
}

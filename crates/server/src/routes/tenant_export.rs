//! All of a laboratory's data as one archive, streamed. Nothing is answered before the database has been
//! looked at, so that a refusal is a problem and not a broken archive; what breaks later breaks the
//! connection, and no reader takes what came.

use std::{cell::RefCell, io, time::Duration};

use actix_web::{HttpResponse, get, http::header, rt, web};
use bytes::Bytes;
use export::{About, ExportError, LIMIT, MEDIA_TYPE, Plan, Source};
use futures_util::stream;
use lab::Action;
use model::{Clock as _, TenantId, TenantState, openapi::File};
use registry::tenant_by_id;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    export_permits::ExportPermit,
    extract::{IdempotencyKey, OperatorCaller, PathId, Tenant},
    problem::{ApiResult, Kind, Problem},
    state::AppState,
};

/// How many pieces of some 64 KiB may wait for the client.
const PIECES_MAX: usize = 4;
/// How long a client may take no piece at all before it is given up: it holds a connection to the database
/// meanwhile.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// How long connecting to a laboratory's database may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The half that reads: it tells once that it can begin, or why not, and then hands on what it reads.
struct Sender {
    /// Held to the end. First, so that it is free when the client reads the archive's end.
    _permit: ExportPermit,
    begun: RefCell<Option<oneshot::Sender<ApiResult<()>>>>,
    pieces: mpsc::Sender<io::Result<Bytes>>,
}

impl Sender {
    async fn send(
        &self,
        txn: &tokio_postgres::Transaction<'_>,
        plan: &Plan,
        about: &About,
    ) -> Result<(), ExportError> {
        if let Some(begun) = self.begun.borrow_mut().take() {
            // The client has gone: the first piece finds that out.
            let _ = begun.send(Ok(()));
        }
        let out = async |piece| match timeout(STALL_LIMIT, self.pieces.send(Ok(piece))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone")),
            Err(_elapsed) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client takes nothing",
            )),
        };
        let summary = export::write(txn, plan, about, out, |_, _| {}).await?;
        tracing::info!(
            tenant.slug = about.slug,
            rows = summary.rows,
            bytes = summary.bytes,
            "laboratory exported"
        );
        Ok(())
    }

    /// Tells how it ended: before the beginning as a problem, after it by breaking the answer off.
    async fn end(&self, slug: &str, outcome: ApiResult<()>) {
        let Err(problem) = outcome else { return };
        if let Some(begun) = self.begun.borrow_mut().take() {
            let _ = begun.send(Err(problem));
            return;
        }
        tracing::warn!(
            tenant.slug = slug,
            error = problem.cause().unwrap_or_default(),
            "an export broke off"
        );
        let _ = self
            .pieces
            .send(Err(io::Error::other("the export broke off")))
            .await;
    }
}

/// The half that answers.
struct Receiver {
    begun: oneshot::Receiver<ApiResult<()>>,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
}

impl Receiver {
    async fn answer(self, slug: &str) -> ApiResult<HttpResponse> {
        match self.begun.await {
            Ok(begun) => begun?,
            Err(_gone) => return Err(Problem::internal("an export ended before it began")),
        }
        let pieces = stream::unfold(self.pieces, |mut pieces| async move {
            let piece = pieces.recv().await?;
            Some((piece, pieces))
        });
        let name = format!("attachment; filename=\"{slug}.zip\"");
        Ok(HttpResponse::Ok()
            .content_type(MEDIA_TYPE)
            .insert_header((header::CONTENT_DISPOSITION, name))
            .streaming(pieces))
    }
}

fn pair(state: &AppState, tenant: TenantId) -> ApiResult<(Sender, Receiver)> {
    let permit = state.export_permits.begin(tenant)?;
    let (begin, begun) = oneshot::channel();
    let (send, pieces) = mpsc::channel(PIECES_MAX);
    let sender = Sender {
        begun: RefCell::new(Some(begin)),
        pieces: send,
        _permit: permit,
    };
    Ok((sender, Receiver { begun, pieces }))
}

fn too_long() -> Problem {
    ExportError::TookTooLong { limit: LIMIT }.into()
}

/// All data of the laboratory: a ZIP of CSV files with their description (Data Package) and a manifest, read
/// at one moment. Passwords are left out. One export of a laboratory runs at a time in each `tenantd`;
/// another gets 409 until it has ended.
#[utoipa::path(tag = "laboratory",
    responses((status = 200, body = File, content_type = "application/zip", description = "The archive, streamed")))]
#[get("/exports/archive")]
pub(crate) async fn own(tenant: Tenant, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    tenant.allow(Action::ExportAll)?;
    let (sender, receiver) = pair(&state, tenant.id())?;
    let found = tenant_by_id(&state.registry_client().await?, tenant.id()).await?;
    let found = found.ok_or_else(|| Problem::new(Kind::UnknownTenant))?;
    state.provisioner.require_own_database(&found).await?;
    tenant
        .write(Action::ExportAll, async |txn, actor| {
            lab::tenant_export::record_archive(txn, actor).await
        })
        .await?;
    let about = bootstrap::about_laboratory(&found, state.clock.now());
    rt::spawn(async move {
        let reading = tenant.read_snapshot(Action::ExportAll, async |txn| {
            let plan = export::plan(txn, &bootstrap::left_out()).await?;
            Ok(sender.send(txn, &plan, &about).await?)
        });
        let outcome = timeout(LIMIT, reading).await.unwrap_or_else(|_| Err(too_long()));
        sender.end(&about.slug, outcome).await;
    });
    receiver.answer(found.slug.as_str()).await
}

/// All data of one laboratory, also of one that is suspended, as its own admin gets it. One export of a
/// laboratory runs at a time; another gets 409 until it has ended.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)),
    responses((status = 200, body = File, content_type = "application/zip", description = "The archive, streamed")))]
#[get("/tenants/{id}/export")]
pub(crate) async fn of_tenant(
    operator: OperatorCaller,
    id: PathId<TenantId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let found = tenant_by_id(&state.registry_client().await?, id.0).await?;
    let found = found.ok_or_else(|| Problem::new(Kind::UnknownTenant))?;
    if found.status == TenantState::Provisioning {
        return Err(Problem::new(Kind::TenantProvisioning));
    }
    let (sender, receiver) = pair(&state, found.id)?;
    let by = operator.requested_by(IdempotencyKey(None));
    let target = state.provisioner.open_for_export(&found, &by).await?;
    let about = bootstrap::about_laboratory(&found, state.clock.now());
    rt::spawn(async move {
        let reading = async {
            let mut source = Source::connect(&target, CONNECT_LIMIT).await?;
            let txn = source.begin().await?;
            let plan = export::plan(&txn, &bootstrap::left_out()).await?;
            sender.send(&txn, &plan, &about).await
        };
        let outcome = match timeout(LIMIT, reading).await {
            Ok(outcome) => outcome.map_err(Problem::from),
            Err(_elapsed) => Err(too_long()),
        };
        sender.end(&about.slug, outcome).await;
    });
    receiver.answer(found.slug.as_str()).await
}

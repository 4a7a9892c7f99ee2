//! A laboratory's program without tenancy: one actix-web server, one deadpool, one database, and one read,
//! `GET /api/v1/patients/{id}`.
//!
//! `tenancy_cost` compares `tenantd` with it, so it does what the product's handler does and nothing else.
//! The same library checks the bearer token at every request. The same functions of `lab` check that the
//! person is still on the staff, and read the patient, in one flight in the same kind of transaction. The
//! answer is the same record with its entity tag. There is no registry, gate, trace, log, metric or deadline.

use std::{io::Write, time::Duration};

use actix_web::{
    App, Error, HttpRequest, HttpResponse, HttpServer,
    error::{ErrorForbidden, ErrorInternalServerError, ErrorNotFound, ErrorUnauthorized},
    get,
    http::header,
    web::{Data, Path},
};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use futures_util::future::join;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use lab::{Action, LabError, PatientId, patients, staff};
use model::{Role, StaffId};
use pg::ConnectTarget;
use tokio_postgres::NoTls;
use uuid::Uuid;

struct State {
    pool: Pool,
    key: DecodingKey,
    validation: Validation,
}

#[derive(serde::Deserialize)]
struct Claims {
    sub: Uuid,
    role: Role,
}

#[get("/api/v1/patients/{id}")]
async fn patient(req: HttpRequest, id: Path<Uuid>, state: Data<State>) -> Result<HttpResponse, Error> {
    let claims = claims(&req, &state).ok_or_else(|| ErrorUnauthorized("token"))?;
    if !lab::may(claims.role, Action::PatientRead) {
        return Err(ErrorForbidden("role"));
    }
    let mut client = state.pool.get().await.map_err(ErrorInternalServerError)?;
    let begun = client.build_transaction().read_only(true).start().await;
    let txn = begun.map_err(ErrorInternalServerError)?;
    let person = staff::login_by_id(&txn, StaffId::from(claims.sub));
    let (person, patient) = join(person, patients::get(&txn, PatientId::from(*id))).await;
    let person = person.map_err(ErrorInternalServerError)?;
    if !person.is_some_and(|person| person.active && person.role == claims.role) {
        return Err(ErrorUnauthorized("staff"));
    }
    let patient = match patient {
        Ok(patient) => patient,
        Err(LabError::NotFound { .. }) => return Err(ErrorNotFound("patient")),
        Err(error) => return Err(ErrorInternalServerError(error.to_string())),
    };
    txn.rollback().await.map_err(ErrorInternalServerError)?;
    Ok(HttpResponse::Ok()
        .insert_header((header::ETAG, format!("\"{}\"", patient.version)))
        .json(&patient))
}

fn claims(req: &HttpRequest, state: &State) -> Option<Claims> {
    let value = req.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let token = value.strip_prefix("Bearer ")?;
    let decoded = decode::<Claims>(token, &state.key, &state.validation);
    decoded.ok().map(|data| data.claims)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let var = |name: &str| std::env::var(name).map_err(|_| anyhow::anyhow!("{name} is not set"));
    let target = ConnectTarget {
        host: var("SINGLE_TENANT_PGHOST")?,
        port: var("SINGLE_TENANT_PGPORT")?.parse()?,
        user: var("SINGLE_TENANT_PGUSER")?,
        password: var("SINGLE_TENANT_PGPASSWORD")?.into(),
        database: var("SINGLE_TENANT_PGDATABASE")?,
    };
    let config = target.to_config("plain", Duration::from_secs(5));
    let recycling = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let pool = Pool::builder(Manager::from_config(config, NoTls, recycling))
        .max_size(var("SINGLE_TENANT_POOL_MAX")?.parse()?)
        .build()?;
    // Opens all connections at once; otherwise the pool would open only as many as are in use at the same
    // time. The pool hands out the one that has been idle longest, so that all are used in turn.
    let mut all = Vec::new();
    for _ in 0..pool.status().max_size {
        all.push(pool.get().await?);
    }
    drop(all);
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_audience(&["lab"]);
    validation.set_issuer(&["tenantry"]);
    let state = Data::new(State {
        pool,
        key: DecodingKey::from_secret(var("SINGLE_TENANT_KEY")?.as_bytes()),
        validation,
    });
    let server = HttpServer::new(move || App::new().app_data(state.clone()).service(patient));
    let server = server.bind("127.0.0.1:0")?;
    for address in server.addrs() {
        let mut out = std::io::stdout().lock();
        writeln!(out, "listening on http://{address}")?;
        out.flush()?;
    }
    Ok(server.run().await?)
}

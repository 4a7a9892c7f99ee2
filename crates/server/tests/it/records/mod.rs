//! The laboratory's records: who is the same person, what a file has changed, what a unit means, and finding
//! it all again.

mod contradicted;
mod imports;
mod lookups;
mod merging;
mod normal_form;
mod order;
mod same;
mod units;

use serde_json::Value;

use crate::support::{Call, Lab, Reply, Tenantd};

/// A file of results as the technician delivers it.
async fn deliver(d: &Tenantd, lab: &Lab, file: &str) -> Value {
    let call = Call::new("POST", "/api/v1/imports").body("text/csv", file);
    d.send(&call, &lab.technician).await.expect(202)
}

/// The rows of a batch that are set aside, as line and code.
async fn set_aside(d: &Tenantd, lab: &Lab, batch: &Value) -> Vec<(i64, String)> {
    let path = format!("/api/v1/imports/{}/errors", batch["id"].as_str().unwrap());
    let page = d.get(&lab.technician, &path).await.expect(200);
    let rows = page["items"].as_array().unwrap().iter();
    rows.map(|row| {
        (
            row["line"].as_i64().unwrap(),
            row["code"].as_str().unwrap().to_owned(),
        )
    })
    .collect()
}

/// A change to one record as read.
async fn patch(d: &Tenantd, token: &str, path: &str, version: &Value, body: &Value) -> Reply {
    let call = Call::new("PATCH", path).json(body).version(version);
    d.send(&call, token).await
}

/// The ids of a list's items.
fn ids(page: &Value) -> Vec<&str> {
    let items = page["items"]
        .as_array()
        .unwrap_or_else(|| panic!("no items in {page}"));
    items.iter().map(|item| item["id"].as_str().unwrap()).collect()
}

/// A 409 whose reason has this code.
#[track_caller]
fn conflict(reply: &Reply, code: &str) {
    reply.refused(409, "conflict");
    assert_eq!(reply.json["errors"][0]["code"], code, "{}", reply.text);
}

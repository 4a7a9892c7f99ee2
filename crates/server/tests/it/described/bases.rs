//! For each operation with a JSON body a request of which every field has the right form. Whether it is
//! carried out does not matter; but nothing may keep the form of a field from being looked at.

use serde_json::{Value, json};

use crate::support::{Call, Lab, OPERATOR, PASSWORD, World, by_code};

/// What the requests are about. All of it is made anew as often as needed.
pub(super) struct Stage {
    pub(super) world: World,
    pub(super) lab: Lab,
}

/// A request.
pub(super) struct Base {
    pub(super) token: String,
    pub(super) path: String,
    pub(super) version: Option<Value>,
    pub(super) body: Value,
}

/// Fields whose value may be refused though its form is right, for what it means; `field=null` when only null
/// may.
pub(super) type Meaningful = &'static [&'static str];

/// A variant of an operation's body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) meaningful: Meaningful,
    /// The fields that are tried; all when there are none.
    pub(super) only: &'static [&'static str],
}

const fn plain(meaningful: Meaningful) -> Variant {
    variant("", meaningful, &[])
}

const fn variant(name: &'static str, meaningful: Meaningful, only: &'static [&'static str]) -> Variant {
    Variant {
        name,
        meaningful,
        only,
    }
}

/// The variants in which an operation's body is tried: between them every field takes part.
pub(super) fn variants(route: &str) -> Vec<Variant> {
    // What goes with one kind of test is refused for the others, and limits are compared with each other.
    const GOES_WITH_KIND: Meaningful = &[
        "unit",
        "allowedValues",
        "criticalValues",
        "members",
        "valueType",
        "deltaPct",
        "deltaDays",
        "loinc",
    ];
    match route {
        "POST /api/v1/tests" | "PATCH /api/v1/tests/{code}" => vec![
            variant("quantity", GOES_WITH_KIND, &[]),
            variant("coded", &["allowedValues=null"], &["allowedValues"]),
            variant("panel", &["members"], &["members"]),
        ],
        "POST /api/v1/tests/{code}/ranges" => {
            vec![plain(&[
                "low", "high", "critLow", "critHigh", "ageFrom", "ageTo", "unit",
            ])]
        }
        // The codes of the catalogue.
        "POST /api/v1/orders" | "POST /api/v1/orders/{id}/tests" => vec![plain(&["tests"])],
        // One that is valid for the test.
        "PUT /api/v1/results/{id}/value" | "POST /api/v1/results/{id}/amendments" => {
            vec![plain(&["value", "unit", "comparator"])]
        }
        // Different ones.
        "POST /api/v1/verifications" | "POST /api/v1/releases" => vec![plain(&["items"])],
        // Not in the future, and not before birth.
        "POST /api/v1/patients" | "PATCH /api/v1/patients/{id}" => vec![plain(&["birthDate"])],
        "POST /api/v1/specimens/{barcode}/collect" | "POST /api/v1/specimens/{barcode}/receive" => {
            vec![plain(&["at"])]
        }
        // Two that go together.
        "POST /api/v1/results/{id}/critical-notice" => {
            vec![plain(&["at", "amendmentId", "amendmentVersion"])]
        }
        "PATCH /api/v1/specimens/{barcode}" => vec![plain(&["collectedAt", "receivedAt"])],
        // One that PostgreSQL knows.
        "PATCH /api/v1/profile" => vec![plain(&["timeZone"])],
        // A server, a database, a zone that is there; the common password.
        "POST /api/v1/tenants" => vec![plain(&["timeZone", "server", "admin.password"])],
        "POST /api/v1/tenants/adopt" => {
            vec![plain(&[
                "database",
                "server",
                "timeZone",
                "invite",
                "admin.password",
            ])]
        }
        "POST /api/v1/archives/{id}/restore" => vec![plain(&["inPlace", "confirmSlug", "server"])],
        "POST /api/v1/archives/import" => vec![plain(&["location"])],
        "POST /api/v1/operations/{id}/end-grace"
        | "POST /api/v1/tenants/{id}/forget"
        | "POST /api/v1/tenants/{id}/offboard" => vec![plain(&["confirmSlug"])],
        // A host that there may be.
        "POST /api/v1/webhooks" => vec![plain(&["url"])],
        _ => vec![plain(&[])],
    }
}

const STAND_IN: &str = "01890000-0000-7000-8000-000000000000";

impl Stage {
    pub(super) async fn new() -> Self {
        let world = World::start().await;
        let lab = world.lab("acme-lab").await;
        Self { world, lab }
    }

    /// A new request, at best one that succeeds. Panics for an operation that nobody has thought of.
    pub(super) async fn base(&self, route: &str, variant: &str) -> Base {
        let found = match self.of_people(route).await {
            Some(found) => Some(found),
            None => self.of_bench(route, variant).await,
        };
        let found = found.or_else(|| self.of_operators(route));
        found.unwrap_or_else(|| panic!("no request for {route} {variant}"))
    }

    async fn of_people(&self, route: &str) -> Option<Base> {
        let (d, lab) = (&self.world.server, &self.lab);
        let email = Lab::email(&lab.slug, "admin");
        let reason = || json!({ "reason": "a good reason" });
        Some(match route {
            "POST /api/v1/auth/login" => base(
                "",
                "/auth/login",
                json!({ "email": email, "password": PASSWORD, "tenant": lab.slug }),
            ),
            "POST /api/v1/operators/login" => base(
                "",
                "/operators/login",
                json!({ "email": OPERATOR, "password": PASSWORD }),
            ),
            "POST /api/v1/auth/invitations/accept" => base(
                "",
                "/auth/invitations/accept",
                json!({ "token": "x", "password": PASSWORD }),
            ),
            "POST /api/v1/me/password" => {
                let body = json!({ "currentPassword": "not this one", "newPassword": PASSWORD });
                base(&lab.technician, "/me/password", body)
            }
            "POST /api/v1/patients" => {
                let number = uuid::Uuid::now_v7().simple().to_string();
                let body = json!({ "familyName": "Curie", "givenName": "Marie", "sex": "F", "birthDate": "1967-11-07",
                                   "nationalId": number });
                base(&lab.receptionist, "/patients", body)
            }
            "PATCH /api/v1/patients/{id}" => {
                let patient = lab.patient(d).await;
                let body = json!({ "familyName": "Curie", "givenName": "Marie", "sex": "F", "birthDate": "1967-11-07",
                                   "nationalId": null });
                base(&lab.receptionist, &at("/patients", &patient, ""), body).seen(&patient)
            }
            "POST /api/v1/patients/{id}/merge" => {
                let (from, into) = (lab.patient(d).await, lab.patient(d).await);
                let body = json!({ "into": into["id"], "reason": "registered twice" });
                base(&lab.supervisor, &at("/patients", &from, "/merge"), body)
            }
            "POST /api/v1/patients/{id}/unmerge" => base(
                &lab.supervisor,
                &at("/patients", &lab.patient(d).await, "/unmerge"),
                reason(),
            ),
            "POST /api/v1/staff" => {
                let body =
                    json!({ "email": "nina@acme-lab.example", "displayName": "Nina", "role": "technician" });
                base(&lab.admin, "/staff", body)
            }
            "PATCH /api/v1/staff/{id}" => {
                let email = format!("{}@acme-lab.example", uuid::Uuid::now_v7().simple());
                let new = json!({ "email": email, "displayName": "Nina", "role": "technician" });
                let person = d.post(&lab.admin, "/api/v1/staff", new).await.expect(201);
                let body =
                    json!({ "email": email, "displayName": "Nina", "role": "technician", "active": true });
                base(&lab.admin, &at("/staff", &person, ""), body).seen(&person)
            }
            "PATCH /api/v1/profile" => {
                let profile = d.get(&lab.admin, "/api/v1/profile").await.expect(200);
                let mut body = profile.clone();
                let fields = body.as_object_mut().unwrap();
                fields.remove("tenantId");
                fields.remove("version");
                base(&lab.admin, "/profile", body).seen(&profile)
            }
            _ => return None,
        })
    }

    async fn of_bench(&self, route: &str, variant: &str) -> Option<Base> {
        let (d, lab) = (&self.world.server, &self.lab);
        let reason = || json!({ "reason": "a good reason" });
        let barcode = |order: &Value, rest: &str| {
            format!(
                "/specimens/{}{rest}",
                order["specimens"][0]["barcode"].as_str().unwrap()
            )
        };
        Some(match route {
            "POST /api/v1/tests" => base(&lab.admin, "/tests", new_test("NEW", variant)),
            "PATCH /api/v1/tests/{code}" => {
                let code = format!("A{}", &uuid::Uuid::now_v7().simple().to_string()[20..]).to_uppercase();
                let test = d
                    .post(&lab.admin, "/api/v1/tests", new_test(&code, variant))
                    .await
                    .expect(201);
                let mut body = new_test(&code, variant);
                let fields = body.as_object_mut().unwrap();
                fields.remove("code");
                fields.remove("specimenType");
                base(&lab.admin, &format!("/tests/{code}"), body).seen(&test)
            }
            "POST /api/v1/tests/{code}/ranges" => {
                let body = json!({ "sex": "F", "ageFrom": "P18Y", "ageTo": "P65Y", "low": "3.0", "high": "5.0",
                                   "critLow": "2.0", "critHigh": "6.0", "replace": true });
                base(&lab.admin, "/tests/K/ranges", body)
            }
            "POST /api/v1/ranges/{id}/close" => {
                let code = format!("A{}", &uuid::Uuid::now_v7().simple().to_string()[20..]).to_uppercase();
                let test = new_test(&code, "quantity");
                d.post(&lab.admin, "/api/v1/tests", test).await.expect(201);
                let path = format!("/api/v1/tests/{code}/ranges");
                let range = d
                    .post(&lab.admin, &path, json!({ "critHigh": "6.0" }))
                    .await
                    .expect(201);
                let body = json!({ "withoutLimits": "it was for a trial" });
                base(&lab.admin, &at("/ranges", &range, "/close"), body)
            }
            "POST /api/v1/orders" => {
                let patient = lab.patient(d).await;
                let number = uuid::Uuid::now_v7().simple().to_string();
                let body = json!({ "patientId": patient["id"], "priority": "stat", "requester": "Dr. Grey",
                                   "placerOrderNo": number, "clinicalNote": "fasting", "tests": ["K"] });
                base(&lab.receptionist, "/orders", body)
            }
            "POST /api/v1/orders/{id}/tests" => {
                let order = lab.order(d, &lab.patient(d).await["id"], &["K"]).await;
                base(
                    &lab.receptionist,
                    &at("/orders", &order, "/tests"),
                    json!({ "tests": ["GLU"] }),
                )
            }
            "POST /api/v1/orders/{id}/cancel" => {
                let order = lab.order(d, &lab.patient(d).await["id"], &["K"]).await;
                base(&lab.receptionist, &at("/orders", &order, "/cancel"), reason())
            }
            "POST /api/v1/specimens/{barcode}/collect" | "POST /api/v1/specimens/{barcode}/receive" => {
                let order = lab.order(d, &lab.patient(d).await["id"], &["K"]).await;
                let rest = route.rsplit_once('/').unwrap().1;
                let body = json!({ "at": null, "confirmUnlikely": true });
                base(&lab.technician, &barcode(&order, &format!("/{rest}")), body)
            }
            "PATCH /api/v1/specimens/{barcode}" => {
                let (_, order) = lab.received_order(d, &["K"]).await;
                let specimen = &order["specimens"][0];
                let body = json!({ "collectedAt": specimen["collectedAt"], "receivedAt": specimen["receivedAt"],
                                   "reason": "mistyped", "confirmUnlikely": true });
                base(&lab.technician, &barcode(&order, ""), body).seen(specimen)
            }
            "POST /api/v1/specimens/{barcode}/reject" => {
                let (_, order) = lab.received_order(d, &["K"]).await;
                let body = json!({ "reason": "haemolysed", "recollect": true });
                base(&lab.technician, &barcode(&order, "/reject"), body)
            }
            "PUT /api/v1/results/{id}/value" => {
                let result = self.result("pending").await;
                let body = json!({ "value": "4.1", "unit": "mmol/L", "comparator": null, "comment": "", "reason": null });
                base(&lab.technician, &at("/results", &result, "/value"), body).seen(&result)
            }
            "POST /api/v1/results/{id}/repeat" => {
                let result = self.result("4.1").await;
                base(&lab.technician, &at("/results", &result, "/repeat"), reason()).seen(&result)
            }
            "POST /api/v1/results/{id}/cancel" => {
                let result = self.result("pending").await;
                base(&lab.technician, &at("/results", &result, "/cancel"), reason()).seen(&result)
            }
            "POST /api/v1/results/{id}/void" => {
                let result = self.result("released").await;
                base(&lab.supervisor, &at("/results", &result, "/void"), reason()).seen(&result)
            }
            "POST /api/v1/results/{id}/critical-notice" => {
                let result = self.result("6.9").await;
                let body = json!({ "notifiedTo": "Dr. Grey", "readBack": true, "at": null });
                base(
                    &lab.technician,
                    &at("/results", &result, "/critical-notice"),
                    body,
                )
                .seen(&result)
            }
            "POST /api/v1/results/{id}/amendments" => {
                let result = self.result("released").await;
                let body = json!({ "value": "4.2", "comparator": null, "comment": "", "reason": "mixed up" });
                base(&lab.supervisor, &at("/results", &result, "/amendments"), body).seen(&result)
            }
            "POST /api/v1/amendments/{id}/verify" => {
                let result = self.result("released").await;
                let path = at("/api/v1/results", &result, "/amendments");
                let body = json!({ "value": "4.2", "reason": "mixed up" });
                let call = Call::new("POST", path).json(&body).version(&result["version"]);
                let amended = d.send(&call, &lab.supervisor).await.expect(200);
                let body = json!({ "version": amended["amendment"]["version"], "confirmLifted": null });
                base(
                    &lab.second_supervisor,
                    &at("/amendments", &amended["amendment"], "/verify"),
                    body,
                )
            }
            "POST /api/v1/verifications" | "POST /api/v1/releases" => {
                let result = self.result("4.1").await;
                let body = json!({ "items": [{ "id": result["id"], "version": result["version"] }] });
                base(&lab.supervisor, route.strip_prefix("POST /api/v1").unwrap(), body)
            }
            _ => return None,
        })
    }

    fn of_operators(&self, route: &str) -> Option<Base> {
        let tenant = |rest: &str| format!("/tenants/{}{rest}", self.lab.id);
        let admin = json!({ "email": "ada@new-lab.example", "displayName": "Ada" });
        let (path, body) = match route {
            // There is one of this name, so none is made.
            "POST /api/v1/tenants" => (
                "/tenants".to_owned(),
                json!({ "slug": self.lab.slug, "name": "New", "timeZone": "Europe/Vienna", "admin": admin }),
            ),
            "POST /api/v1/tenants/adopt" => (
                "/tenants/adopt".to_owned(),
                json!({ "database": "no_such_database", "slug": "new-lab", "baseline": 1, "name": "New", "invite": false,
                        "timeZone": "Europe/Vienna", "admin": admin }),
            ),
            "POST /api/v1/tenants/{id}/offboard" => (
                format!("/tenants/{STAND_IN}/offboard"),
                json!({ "graceSeconds": 86_400, "confirmSlug": "acme-lab", "reason": "over" }),
            ),
            "POST /api/v1/tenants/{id}/forget" => (
                tenant("/forget"),
                json!({ "confirmSlug": "acme-lab", "reason": "gone" }),
            ),
            "POST /api/v1/operations/{id}/end-grace" => (
                format!("/operations/{STAND_IN}/end-grace"),
                json!({ "confirmSlug": "acme-lab", "reason": "over" }),
            ),
            "POST /api/v1/archives/{id}/restore" => (
                format!("/archives/{STAND_IN}/restore"),
                json!({ "as": "new-lab", "inPlace": false, "reason": "lost" }),
            ),
            "POST /api/v1/archives/prune" => (
                "/archives/prune".to_owned(),
                json!({ "tenantId": STAND_IN, "dryRun": true }),
            ),
            "POST /api/v1/archives/import" => (
                "/archives/import".to_owned(),
                json!({ "location": "/nowhere/x.dump" }),
            ),
            "PUT /api/v1/tenants/{id}/backup-schedule" => (
                tenant("/backup-schedule"),
                json!({ "everySeconds": 86_400, "keepLast": 7, "keepForSeconds": 86_400 }),
            ),
            "POST /api/v1/webhooks" => (
                "/webhooks".to_owned(),
                json!({ "url": "https://hooks.invalid/x", "description": "for a test", "eventTypes": ["laboratory.removed"] }),
            ),
            "POST /api/v1/webhooks/{id}/rotate" => (
                format!("/webhooks/{STAND_IN}/rotate"),
                json!({ "overlapSeconds": 60 }),
            ),
            _ => return None,
        };
        Some(base(&self.world.operator, &path, body))
    }

    /// A potassium that is pending, has a value, or was released.
    async fn result(&self, status: &str) -> Value {
        let (d, lab) = (&self.world.server, &self.lab);
        let (_, order) = lab.received_order(d, &["K"]).await;
        let pending = by_code(&order, "K").clone();
        match status {
            "pending" => pending,
            "released" => {
                let entered = lab.enter(d, &pending, "4.1").await;
                let verified = lab.verify(d, &entered).await;
                lab.release(d, &verified).await
            }
            value => lab.enter(d, &pending, value).await,
        }
    }
}

fn new_test(code: &str, variant: &str) -> Value {
    let mut test = json!({ "code": code, "name": "New", "section": "toxicology", "specimenType": "EDTA blood",
                           "valueType": variant, "tatMinutes": 60, "decimals": 2 });
    match variant {
        "quantity" => {
            test["unit"] = json!("ug/dL");
            test["loinc"] = json!("2345-7");
            test["deltaPct"] = json!("10.0");
            test["deltaDays"] = json!(30);
        }
        "coded" => test["allowedValues"] = json!(["yes"]),
        _ => test["members"] = json!(["K"]),
    }
    test
}

fn base(token: &str, path: &str, body: Value) -> Base {
    Base {
        token: token.to_owned(),
        path: format!("/api/v1{path}"),
        version: None,
        body,
    }
}

fn at(resource: &str, record: &Value, rest: &str) -> String {
    format!("{resource}/{}{rest}", record["id"].as_str().unwrap())
}

impl Base {
    fn seen(self, record: &Value) -> Self {
        Self {
            version: Some(record["version"].clone()),
            ..self
        }
    }

    /// The request with another body.
    pub(super) fn call(&self, method: &str, body: &Value) -> Call {
        let call = Call::new(method, &self.path).json(body);
        match &self.version {
            Some(version) => call.version(version),
            None => call,
        }
    }
}

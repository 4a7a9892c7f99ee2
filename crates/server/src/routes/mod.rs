//! Every route, one file per resource.
//!
//! A route is registered through utoipa's configuration only, which takes none without its description: so
//! the OpenAPI document cannot miss one.

pub mod adopt;
pub mod amendments;
pub mod archives;
pub mod auth;
pub mod backups;
pub mod doctor;
pub mod forget;
pub mod health;
pub mod imports;
pub mod invitations;
pub mod laboratory;
pub mod operations;
pub mod orders;
pub mod own_account;
pub mod patients;
pub mod ranges;
pub mod result_feed;
pub mod results;
pub mod service;
pub mod signoff;
pub mod specimens;
pub mod staff;
pub mod tenant_export;
pub mod tenants;
pub mod test_definitions;
pub mod webhooks;
pub mod worklist;

use utoipa_actix_web::service_config::ServiceConfig;

/// What stands at the root.
pub fn service(config: &mut ServiceConfig<'_>) {
    config
        .service(service::livez)
        .service(service::readyz)
        .service(invitations::page)
        .service(service::metrics)
        .service(service::problem_types)
        .service(service::problem_type);
}

/// What stands under `/api/v1`.
pub fn api(config: &mut ServiceConfig<'_>) {
    log_in(config);
    people(config);
    catalogue(config);
    bench(config);
    operators(config);
}

fn log_in(config: &mut ServiceConfig<'_>) {
    config
        .service(auth::log_in)
        .service(invitations::accept)
        .service(auth::operator_log_in)
        .service(auth::log_out)
        .service(auth::me)
        .service(own_account::change_password);
}

fn people(config: &mut ServiceConfig<'_>) {
    config
        .service(patients::create)
        .service(patients::search)
        .service(patients::show)
        .service(patients::change)
        .service(patients::merge)
        .service(patients::unmerge)
        .service(patients::results)
        .service(staff::list)
        .service(staff::create)
        .service(staff::show)
        .service(staff::change)
        .service(staff::invite)
        .service(staff::revoke_invitation)
        .service(laboratory::show)
        .service(laboratory::change)
        .service(laboratory::audit_trail);
}

fn catalogue(config: &mut ServiceConfig<'_>) {
    config
        .service(test_definitions::list)
        .service(test_definitions::create)
        .service(test_definitions::show)
        .service(test_definitions::change)
        .service(ranges::list)
        .service(ranges::create)
        .service(ranges::close);
}

fn bench(config: &mut ServiceConfig<'_>) {
    config
        .service(orders::create)
        .service(orders::list)
        .service(orders::show)
        .service(orders::add_tests)
        .service(orders::cancel)
        .service(orders::report)
        .service(specimens::show)
        .service(specimens::collect)
        .service(specimens::receive)
        .service(specimens::correct)
        .service(specimens::reject)
        .service(specimens::dispose)
        .service(results::show)
        .service(results::enter)
        .service(results::repeat)
        .service(results::cancel)
        .service(results::void)
        .service(results::critical_notice)
        .service(results::history)
        .service(signoff::verify)
        .service(signoff::release)
        .service(amendments::waiting)
        .service(amendments::propose)
        .service(amendments::verify)
        .service(amendments::withdraw)
        .service(worklist::list)
        .service(imports::create)
        .service(imports::show)
        .service(imports::errors)
        .service(imports::retry)
        .service(result_feed::results)
        .service(tenant_export::own);
}

fn operators(config: &mut ServiceConfig<'_>) {
    config
        .service(tenants::list)
        .service(tenants::provision)
        .service(adopt::adopt)
        .service(tenants::show)
        .service(tenants::suspend)
        .service(tenants::resume)
        .service(tenants::migrate)
        .service(tenants::offboard)
        .service(forget::forget)
        .service(invitations::list)
        .service(invitations::renew)
        .service(invitations::revoke)
        .service(health::health)
        .service(operations::list)
        .service(operations::show)
        .service(operations::cancel)
        .service(operations::end_grace)
        .service(operations::retry)
        .service(archives::list)
        .service(tenant_export::of_tenant)
        .service(doctor::examine)
        .service(doctor::mend)
        .service(archives::prune)
        .service(archives::import)
        .service(archives::show)
        .service(archives::verify)
        .service(archives::restore)
        .service(backups::create)
        .service(backups::schedules)
        .service(backups::show_schedule)
        .service(backups::set_schedule)
        .service(backups::end_schedule)
        .service(webhooks::list)
        .service(webhooks::create)
        .service(webhooks::show)
        .service(webhooks::remove)
        .service(webhooks::rotate)
        .service(webhooks::enable)
        .service(webhooks::disable)
        .service(webhooks::test)
        .service(webhooks::deliveries)
        .service(webhooks::show_delivery)
        .service(webhooks::redeliver);
}

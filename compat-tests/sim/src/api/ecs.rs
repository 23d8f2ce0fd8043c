//! AmazonEC2ContainerServiceV20141113: ECS Exec. Every task exists, with one container.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::account::ACCOUNT;
use super::error::ApiError;
use crate::agent::Document;
use crate::service::Service;

#[derive(Deserialize)]
pub(super) struct ExecuteCommand {
    cluster: Option<String>,
    task: Option<String>,
    container: Option<String>,
    command: Option<String>,
    interactive: Option<bool>,
}

pub(super) fn execute_command(service: &Arc<Service>, request: &ExecuteCommand) -> Result<Value, ApiError> {
    let invalid = |text: &str| ApiError::new("InvalidParameterException", text);
    let task =
        request.task.as_deref().ok_or_else(|| ApiError::new("ClientException", "Task cannot be empty."))?;
    let command = request.command.as_deref().filter(|c| !c.is_empty());
    let command = command.ok_or_else(|| invalid("Command cannot be empty."))?;
    if request.interactive != Some(true) {
        return Err(invalid("Interactive is the only mode supported currently."));
    }
    let container = request.container.as_deref().unwrap_or(CONTAINER);
    if container != CONTAINER {
        return Err(invalid(&format!("The container {container} does not exist in the task.")));
    }
    let task = Task::new(service, request.cluster.as_deref(), task);
    let target = format!("ecs:{}_{}_{}", task.cluster, task.id, task.runtime_id());
    let document = Document::InteractiveCommand { command: command.to_owned() };
    let opening = service.start_session(&target, "AmazonECS-ExecuteInteractiveCommand", document);
    Ok(json!({
        "clusterArn": task.cluster_arn(),
        "taskArn": task.arn(),
        "containerArn": task.container_arn(),
        "containerName": CONTAINER,
        "interactive": true,
        "session": {
            "sessionId": opening.session_id, "streamUrl": opening.url, "tokenValue": opening.token,
        },
    }))
}

#[derive(Deserialize)]
pub(super) struct DescribeTasks {
    cluster: Option<String>,
    tasks: Option<Vec<String>>,
}

pub(super) fn describe_tasks(service: &Arc<Service>, request: &DescribeTasks) -> Result<Value, ApiError> {
    let ids = request.tasks.as_deref().filter(|t| !t.is_empty());
    let ids = ids.ok_or_else(|| ApiError::new("InvalidParameterException", "Tasks cannot be empty."))?;
    let tasks: Vec<Value> = ids
        .iter()
        .map(|id| {
            let task = Task::new(service, request.cluster.as_deref(), id);
            json!({
                "taskArn": task.arn(),
                "clusterArn": task.cluster_arn(),
                "lastStatus": "RUNNING",
                "desiredStatus": "RUNNING",
                "launchType": "FARGATE",
                "enableExecuteCommand": true,
                "containers": [{
                    "containerArn": task.container_arn(),
                    "taskArn": task.arn(),
                    "name": CONTAINER,
                    "runtimeId": task.runtime_id(),
                    "lastStatus": "RUNNING",
                    "managedAgents": [{ "name": "ExecuteCommandAgent", "lastStatus": "RUNNING" }],
                }],
            })
        })
        .collect();
    Ok(json!({ "tasks": tasks, "failures": [] }))
}

/// A task, by its id or ARN.
struct Task {
    region: String,
    cluster: String,
    id: String,
}

impl Task {
    fn new(service: &Service, cluster: Option<&str>, task: &str) -> Task {
        let last = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
        Task {
            region: service.config.region.clone(),
            cluster: last(cluster.unwrap_or("default")),
            id: last(task),
        }
    }

    fn runtime_id(&self) -> String {
        format!("{}-2531612879", self.id)
    }

    fn cluster_arn(&self) -> String {
        format!("arn:aws:ecs:{}:{ACCOUNT}:cluster/{}", self.region, self.cluster)
    }

    fn arn(&self) -> String {
        format!("arn:aws:ecs:{}:{ACCOUNT}:task/{}/{}", self.region, self.cluster, self.id)
    }

    fn container_arn(&self) -> String {
        let region = &self.region;
        format!("arn:aws:ecs:{region}:{ACCOUNT}:container/{}/{}/{CONTAINER}", self.cluster, self.id)
    }
}

/// The name of every task's container.
const CONTAINER: &str = "app";

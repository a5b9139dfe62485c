import { flowRunPage } from "./flow_run.js";
import { flowRunsPage } from "./flow_runs.js";
import { taskRunPage } from "./task_run.js";

// as prefect.Client.get_cloud_url has them: /tenant/flow-run/id
const [, kind, id] = location.pathname.split("/").filter(Boolean).map(decodeURIComponent);
const pages = { "flow-run": flowRunPage, "task-run": taskRunPage };
const page = pages[kind] ?? flowRunsPage;
page(document.querySelector("main"), document.querySelector(".notice"), id);

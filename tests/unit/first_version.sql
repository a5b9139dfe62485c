BEGIN TRANSACTION;
CREATE TABLE agent (
	id VARCHAR NOT NULL, 
	tenant_id VARCHAR, 
	agent_config_id VARCHAR, 
	name VARCHAR, 
	type VARCHAR, 
	core_version VARCHAR, 
	labels JSON NOT NULL, 
	last_queried VARCHAR, 
	created VARCHAR NOT NULL, 
	updated VARCHAR NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id) ON DELETE CASCADE, 
	FOREIGN KEY(agent_config_id) REFERENCES agent_config (id) ON DELETE SET NULL
);
CREATE TABLE agent_config (
	id VARCHAR NOT NULL, 
	tenant_id VARCHAR, 
	name VARCHAR, 
	settings JSON NOT NULL, 
	created VARCHAR NOT NULL, 
	updated VARCHAR NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id) ON DELETE CASCADE
);
CREATE TABLE edge (
	id VARCHAR NOT NULL, 
	tenant_id VARCHAR, 
	flow_id VARCHAR NOT NULL, 
	upstream_task_id VARCHAR NOT NULL, 
	downstream_task_id VARCHAR NOT NULL, 
	"key" VARCHAR, 
	mapped BOOLEAN NOT NULL, 
	created VARCHAR NOT NULL, 
	updated VARCHAR NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (flow_id, downstream_task_id, upstream_task_id), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id) ON DELETE CASCADE, 
	FOREIGN KEY(flow_id) REFERENCES flow (id) ON DELETE CASCADE, 
	FOREIGN KEY(upstream_task_id) REFERENCES task (id) ON DELETE CASCADE, 
	FOREIGN KEY(downstream_task_id) REFERENCES task (id) ON DELETE CASCADE
);
INSERT INTO "edge" VALUES('26c23584-2ec5-4868-9b80-48272c06bd40','d10ff232-e814-4ee6-a7c8-4a957b458032','bec628a7-f289-4d72-a835-630d3fc82355','c75427f6-7dd5-4459-b76f-6f48213738ca','c8582b6a-8eb5-4e9f-8200-f06473630f77','x',0,'2026-11-25T00:33:45.630002+00:00','2026-11-25T00:33:45.630016+00:00');
CREATE TABLE flow (
	id VARCHAR NOT NULL, 
	tenant_id VARCHAR, 
	project_id VARCHAR NOT NULL, 
	flow_group_id VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	description TEXT, 
	version INTEGER, 
	version_group_id VARCHAR, 
	archived BOOLEAN NOT NULL, 
	serialized_flow JSON, 
	environment JSON, 
	run_config JSON, 
	storage JSON, 
	parameters JSON NOT NULL, 
	core_version VARCHAR, 
	schedule JSON, 
	is_schedule_active BOOLEAN NOT NULL, 
	settings JSON NOT NULL, 
	created VARCHAR NOT NULL, 
	updated VARCHAR NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id) ON DELETE CASCADE, 
	FOREIGN KEY(project_id) REFERENCES project (id) ON DELETE CASCADE, 
	FOREIGN KEY(flow_group_id) REFERENCES flow_group (id) ON DELETE CASCADE
);
INSERT INTO "flow" VALUES('bec628a7-f289-4d72-a835-630d3fc82355','d10ff232-e814-4ee6-a7c8-4a957b458032','ac58cde8-026a-4f76-baf2-b948d2f60ff7','e85da074-8b8c-40d0-bd51-442a0dc8061f','first flow',NULL,1,'083c3fe1-c8a8-4014-96f6-b77e4d611eee',0,'{"name": "first flow", "__version__": "1.4.1", "tasks": [{"slug": "a-1", "name": "a"}, {"slug": "b-1", "name": "b"}], "edges": [{"upstream_task": {"slug": "a-1"}, "downstream_task": {"slug": "b-1"}, "key": "x"}]}',NULL,NULL,NULL,'[]','1.4.1',NULL,0,'{}','2026-11-25T00:33:45.580071+00:00','2026-11-25T00:33:45.628601+00:00');
CREATE TABLE flow_group (
	id VARCHAR NOT NULL, 
	tenant_id VARCHAR, 
	name VARCHAR, 
	description TEXT, 
	labels JSON, 
	schedule JSON, 
	run_config JSON, 
	default_parameters JSON NOT NULL, 
	settings JSON NOT NULL, 
	created VARCHAR NOT NULL, 
	updated VARCHAR NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id) ON DELETE CASCADE
);
INSERT INTO "flow_group" VALUES('e85da074-8b8c-40d0-bd51-442a0dc8061f','d10ff232-e814-4ee6-a7c8-4a957b458032','083c3fe1-c8a8-4014-96f6-b77e4d611eee',NULL,NULL,NULL,NULL,'{}','{"heartbeat_enabled": true, "lazarus_enabled": true, "version_locking_enabled": false, "idempotency_key": null}','2026-11-25T00:33:45.576589+00:00','2026-11-25T00:33:45.576601+00:00');
CREATE TABLE flow_run (
	id VARCHAR NOT NULL, 
	tenant_id VARCHAR, 
	flow_id VARCHAR NOT NULL, 
	agent_id VARCHAR, 
	name VARCHAR, 
	version INTEGER NOT NULL, 
	heartbeat VARCHAR, 
	start_time VARCHAR, 
	end_time VARCHAR, 
	state VARCHAR, 
	state_message TEXT, 
	state_timestamp VARCHAR, 
	state_start_time VARCHAR, 
	state_result JSON, 
	serialized_state JSON, 
	parameters JSON NOT NULL, 
	context JSON NOT NULL, 
	labels JSON NOT NULL, 
	run_config JSON, 
	scheduled_start_time VARCHAR NOT NULL, 
	auto_scheduled BOOLEAN NOT NULL, 
	idempotency_key VARCHAR, 
	times_resurrected INTEGER NOT NULL, 
	created VARCHAR NOT NULL, 
	updated VARCHAR NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (flow_id, idempotency_key), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id) ON DELETE CASCADE, 
	FOREIGN KEY(flow_id) REFERENCES flow (id) ON DELETE CASCADE, 
	FOREIGN KEY(agent_id) REFERENCES agent (id) ON DELETE SET NULL
);
INSERT INTO "flow_run" VALUES('0ef1bd66-f850-4ee0-a1e8-79ab14c4fbbe','d10ff232-e814-4ee6-a7c8-4a957b458032','bec628a7-f289-4d72-a835-630d3fc82355',NULL,'first run',2,'2026-11-25T00:33:45.636495+00:00','2026-11-25T00:33:45.636495+00:00',NULL,'Running','runs','2026-11-25T00:33:45.636495+00:00',NULL,NULL,'{"type": "Running", "message": "runs"}','{}','{"prefect_taskrun_tasks": {"parent_flow_run_id": "11111111-1111-4111-8111-111111111111"}}','[]',NULL,'2026-11-25T00:33:45.631513+00:00',0,'once',0,'2026-11-25T00:33:45.632277+00:00','2026-11-25T00:33:45.637144+00:00');
CREATE TABLE flow_run_state (
	id VARCHAR NOT NULL, 
	tenant_id VARCHAR, 
	flow_run_id VARCHAR NOT NULL, 
	timestamp VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	message TEXT, 
	result JSON, 
	start_time VARCHAR, 
	serialized_state JSON NOT NULL, 
	version INTEGER, 
	created VARCHAR NOT NULL, 
	updated VARCHAR NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id) ON DELETE CASCADE, 
	FOREIGN KEY(flow_run_id) REFERENCES flow_run (id) ON DELETE CASCADE
);
INSERT INTO "flow_run_state" VALUES('434d5d29-e20f-4c70-95f3-956f7cf7e82f','d10ff232-e814-4ee6-a7c8-4a957b458032','0ef1bd66-f850-4ee0-a1e8-79ab14c4fbbe','2026-11-25T00:33:45.634902+00:00','Scheduled','Flow run scheduled.',NULL,'2026-11-25T00:33:45.631513+00:00','{"type": "Scheduled", "message": "Flow run scheduled.", "start_time": "2026-11-25T00:33:45.631513+00:00"}',1,'2026-11-25T00:33:45.635524+00:00','2026-11-25T00:33:45.635532+00:00');
INSERT INTO "flow_run_state" VALUES('46dafab1-9e9d-45a1-8af1-1d9ec6404e7f','d10ff232-e814-4ee6-a7c8-4a957b458032','0ef1bd66-f850-4ee0-a1e8-79ab14c4fbbe','2026-11-25T00:33:45.636495+00:00','Running','runs',NULL,NULL,'{"type": "Running", "message": "runs"}',2,'2026-11-25T00:33:45.636664+00:00','2026-11-25T00:33:45.636671+00:00');
CREATE TABLE log (
	id VARCHAR NOT NULL, 
	tenant_id VARCHAR, 
	flow_run_id VARCHAR, 
	task_run_id VARCHAR, 
	timestamp VARCHAR NOT NULL, 
	name VARCHAR, 
	level VARCHAR, 
	message TEXT, 
	info JSON, 
	is_loaded_from_archive BOOLEAN, 
	created VARCHAR NOT NULL, 
	updated VARCHAR NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id) ON DELETE CASCADE, 
	FOREIGN KEY(flow_run_id) REFERENCES flow_run (id) ON DELETE CASCADE, 
	FOREIGN KEY(task_run_id) REFERENCES task_run (id) ON DELETE CASCADE
);
INSERT INTO "log" VALUES('df9ed2e6-ac8e-476b-92a1-98e04bea5b2a',NULL,'0ef1bd66-f850-4ee0-a1e8-79ab14c4fbbe',NULL,'2026-11-25T00:33:45.640788+00:00',NULL,'INFO','first line',NULL,NULL,'2026-11-25T00:33:45.641232+00:00','2026-11-25T00:33:45.641239+00:00');
CREATE TABLE project (
	id VARCHAR NOT NULL, 
	tenant_id VARCHAR, 
	name VARCHAR NOT NULL, 
	description TEXT, 
	created VARCHAR NOT NULL, 
	updated VARCHAR NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (tenant_id, name), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id) ON DELETE CASCADE
);
INSERT INTO "project" VALUES('ac58cde8-026a-4f76-baf2-b948d2f60ff7','d10ff232-e814-4ee6-a7c8-4a957b458032','first project',NULL,'2026-11-25T00:33:45.574917+00:00','2026-11-25T00:33:45.574929+00:00');
CREATE TABLE task (
	id VARCHAR NOT NULL, 
	tenant_id VARCHAR, 
	flow_id VARCHAR NOT NULL, 
	name VARCHAR, 
	slug VARCHAR, 
	description TEXT, 
	type VARCHAR, 
	max_retries INTEGER, 
	retry_delay VARCHAR, 
	"trigger" VARCHAR, 
	cache_key VARCHAR, 
	tags JSON NOT NULL, 
	auto_generated BOOLEAN NOT NULL, 
	mapped BOOLEAN NOT NULL, 
	is_root_task BOOLEAN NOT NULL, 
	is_terminal_task BOOLEAN NOT NULL, 
	is_reference_task BOOLEAN NOT NULL, 
	created VARCHAR NOT NULL, 
	updated VARCHAR NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (flow_id, slug), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id) ON DELETE CASCADE, 
	FOREIGN KEY(flow_id) REFERENCES flow (id) ON DELETE CASCADE
);
INSERT INTO "task" VALUES('c75427f6-7dd5-4459-b76f-6f48213738ca','d10ff232-e814-4ee6-a7c8-4a957b458032','bec628a7-f289-4d72-a835-630d3fc82355','a','a-1',NULL,NULL,NULL,NULL,NULL,NULL,'[]',0,0,0,0,0,'2026-11-25T00:33:45.627725+00:00','2026-11-25T00:33:45.627755+00:00');
INSERT INTO "task" VALUES('c8582b6a-8eb5-4e9f-8200-f06473630f77','d10ff232-e814-4ee6-a7c8-4a957b458032','bec628a7-f289-4d72-a835-630d3fc82355','b','b-1',NULL,NULL,NULL,NULL,NULL,NULL,'[]',0,0,0,0,0,'2026-11-25T00:33:45.627766+00:00','2026-11-25T00:33:45.627769+00:00');
CREATE TABLE task_run (
	id VARCHAR NOT NULL, 
	tenant_id VARCHAR, 
	flow_run_id VARCHAR NOT NULL, 
	task_id VARCHAR NOT NULL, 
	map_index INTEGER NOT NULL, 
	name VARCHAR, 
	version INTEGER NOT NULL, 
	heartbeat VARCHAR, 
	start_time VARCHAR, 
	end_time VARCHAR, 
	state VARCHAR, 
	state_message TEXT, 
	state_timestamp VARCHAR, 
	state_start_time VARCHAR, 
	state_result JSON, 
	serialized_state JSON, 
	cache_key VARCHAR, 
	created VARCHAR NOT NULL, 
	updated VARCHAR NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (flow_run_id, task_id, map_index), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id) ON DELETE CASCADE, 
	FOREIGN KEY(flow_run_id) REFERENCES flow_run (id) ON DELETE CASCADE, 
	FOREIGN KEY(task_id) REFERENCES task (id) ON DELETE CASCADE
);
INSERT INTO "task_run" VALUES('c89c1fd8-8268-4f1e-975f-d1293a20c481','d10ff232-e814-4ee6-a7c8-4a957b458032','0ef1bd66-f850-4ee0-a1e8-79ab14c4fbbe','c75427f6-7dd5-4459-b76f-6f48213738ca',-1,NULL,2,NULL,NULL,'2026-11-25T00:33:45.638413+00:00','Success','done','2026-11-25T00:33:45.638413+00:00',NULL,NULL,'{"type": "Success", "message": "done"}',NULL,'2026-11-25T00:33:45.633381+00:00','2026-11-25T00:33:45.639366+00:00');
INSERT INTO "task_run" VALUES('286df8fd-36cc-47a6-a46a-a50111bc5c94','d10ff232-e814-4ee6-a7c8-4a957b458032','0ef1bd66-f850-4ee0-a1e8-79ab14c4fbbe','c8582b6a-8eb5-4e9f-8200-f06473630f77',-1,NULL,2,NULL,NULL,'2026-11-25T00:33:45.639642+00:00','Success','done','2026-11-25T00:33:45.639642+00:00',NULL,NULL,'{"type": "Success", "message": "done"}',NULL,'2026-11-25T00:33:45.633401+00:00','2026-11-25T00:33:45.640052+00:00');
CREATE TABLE task_run_artifact (
	id VARCHAR NOT NULL, 
	tenant_id VARCHAR, 
	task_run_id VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	data JSON NOT NULL, 
	created VARCHAR NOT NULL, 
	updated VARCHAR NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id) ON DELETE CASCADE, 
	FOREIGN KEY(task_run_id) REFERENCES task_run (id) ON DELETE CASCADE
);
CREATE TABLE task_run_state (
	id VARCHAR NOT NULL, 
	tenant_id VARCHAR, 
	task_run_id VARCHAR NOT NULL, 
	timestamp VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	message TEXT, 
	result JSON, 
	start_time VARCHAR, 
	serialized_state JSON NOT NULL, 
	version INTEGER, 
	created VARCHAR NOT NULL, 
	updated VARCHAR NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id) ON DELETE CASCADE, 
	FOREIGN KEY(task_run_id) REFERENCES task_run (id) ON DELETE CASCADE
);
INSERT INTO "task_run_state" VALUES('643bf48a-de4f-4b94-9d1c-471ba03369d7','d10ff232-e814-4ee6-a7c8-4a957b458032','c89c1fd8-8268-4f1e-975f-d1293a20c481','2026-11-25T00:33:45.632448+00:00','Pending','Task run created',NULL,NULL,'{"type": "Pending", "message": "Task run created"}',1,'2026-11-25T00:33:45.633920+00:00','2026-11-25T00:33:45.633928+00:00');
INSERT INTO "task_run_state" VALUES('526fc0e7-82c1-43d0-9c3d-491bcc2ca7da','d10ff232-e814-4ee6-a7c8-4a957b458032','286df8fd-36cc-47a6-a46a-a50111bc5c94','2026-11-25T00:33:45.632448+00:00','Pending','Task run created',NULL,NULL,'{"type": "Pending", "message": "Task run created"}',1,'2026-11-25T00:33:45.633937+00:00','2026-11-25T00:33:45.633941+00:00');
INSERT INTO "task_run_state" VALUES('a635f465-1eb5-4cb2-815f-a39138417322','d10ff232-e814-4ee6-a7c8-4a957b458032','c89c1fd8-8268-4f1e-975f-d1293a20c481','2026-11-25T00:33:45.638413+00:00','Success','done',NULL,NULL,'{"type": "Success", "message": "done"}',2,'2026-11-25T00:33:45.638850+00:00','2026-11-25T00:33:45.638858+00:00');
INSERT INTO "task_run_state" VALUES('a2b8e7fc-98d0-4e29-be8b-ab40178af4f6','d10ff232-e814-4ee6-a7c8-4a957b458032','286df8fd-36cc-47a6-a46a-a50111bc5c94','2026-11-25T00:33:45.639642+00:00','Success','done',NULL,NULL,'{"type": "Success", "message": "done"}',2,'2026-11-25T00:33:45.639804+00:00','2026-11-25T00:33:45.639810+00:00');
CREATE TABLE tenant (
	id VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	slug VARCHAR NOT NULL, 
	info JSON, 
	settings JSON NOT NULL, 
	created VARCHAR NOT NULL, 
	updated VARCHAR NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (slug)
);
INSERT INTO "tenant" VALUES('d10ff232-e814-4ee6-a7c8-4a957b458032','default','default',NULL,'{}','2026-11-25T00:33:45.570685+00:00','2026-11-25T00:33:45.571434+00:00');
CREATE INDEX ix_project_tenant_id ON project (tenant_id);
CREATE INDEX ix_flow_group_name ON flow_group (name);
CREATE INDEX ix_flow_group_tenant_id ON flow_group (tenant_id);
CREATE INDEX ix_agent_config_tenant_id ON agent_config (tenant_id);
CREATE INDEX ix_flow_flow_group_id ON flow (flow_group_id);
CREATE INDEX ix_flow_tenant_id ON flow (tenant_id);
CREATE INDEX ix_flow_project_id ON flow (project_id);
CREATE INDEX ix_flow_name ON flow (name);
CREATE INDEX ix_flow_version_group_id ON flow (version_group_id);
CREATE INDEX ix_agent_tenant_id ON agent (tenant_id);
CREATE INDEX ix_agent_agent_config_id ON agent (agent_config_id);
CREATE INDEX ix_task_flow_id ON task (flow_id);
CREATE INDEX ix_task_tenant_id ON task (tenant_id);
CREATE INDEX ix_flow_run_created ON flow_run (created);
CREATE INDEX ix_flow_run_state_start_time ON flow_run (state, state_start_time);
CREATE INDEX ix_flow_run_flow_id ON flow_run (flow_id);
CREATE INDEX ix_flow_run_agent_id ON flow_run (agent_id);
CREATE INDEX ix_flow_run_tenant_id ON flow_run (tenant_id);
CREATE INDEX ix_edge_tenant_id ON edge (tenant_id);
CREATE INDEX ix_edge_downstream_task_id ON edge (downstream_task_id);
CREATE INDEX ix_edge_flow_id ON edge (flow_id);
CREATE INDEX ix_edge_upstream_task_id ON edge (upstream_task_id);
CREATE INDEX ix_flow_run_state_flow_run_id ON flow_run_state (flow_run_id);
CREATE INDEX ix_flow_run_state_tenant_id ON flow_run_state (tenant_id);
CREATE INDEX ix_task_run_state_start_time ON task_run (state, state_start_time);
CREATE INDEX ix_task_run_cache_key ON task_run (cache_key);
CREATE INDEX ix_task_run_tenant_id ON task_run (tenant_id);
CREATE INDEX ix_task_run_flow_run_id ON task_run (flow_run_id);
CREATE INDEX ix_task_run_task_id ON task_run (task_id);
CREATE INDEX ix_task_run_state_task_run_id ON task_run_state (task_run_id);
CREATE INDEX ix_task_run_state_tenant_id ON task_run_state (tenant_id);
CREATE INDEX ix_log_flow_run_id ON log (flow_run_id);
CREATE INDEX ix_log_task_run_id ON log (task_run_id);
CREATE INDEX ix_log_flow_run_timestamp ON log (flow_run_id, timestamp);
CREATE INDEX ix_log_tenant_id ON log (tenant_id);
CREATE INDEX ix_task_run_artifact_tenant_id ON task_run_artifact (tenant_id);
CREATE INDEX ix_task_run_artifact_task_run_id ON task_run_artifact (task_run_id);
COMMIT;

"""A registered flow as it was when looked up."""

import os
import threading
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional

import marshmallow
import prefect
from prefect.run_configs.base import RunConfig
from prefect.serialization.flow import FlowSchema
from prefect.serialization.run_config import RunConfigSchema
from prefect.serialization.storage import StorageSchema
from prefect.tasks.secrets import PrefectSecret
from prefect.utilities.graphql import GraphQLResult

from .. import api
from ..errors import Ambiguous, NotFound, WrongParameters
from .arguments import check_kind, check_text

NEWEST_FIRST = {"created": "desc"}

#: Flows that `get_flow` keeps
FLOWS_KEPT = 32

_flows: "Dict[str, prefect.Flow]" = {}
#: a flow's code may itself load a flow
_loading = threading.RLock()


def _forget() -> None:
    """A process that was forked must not wait for a thread that has not come along."""
    global _loading
    _loading = threading.RLock()


os.register_at_fork(after_in_child=_forget)


@dataclass(frozen=True, eq=False, repr=False)
class FlowView:
    """A frozen picture of a registered flow. Drop-in for `prefect.backend.FlowView`.

    Example:
        >>> FlowView.from_flow_name("child", project_name="examples").flow_id
    """

    #: UUID of this version of the flow
    flow_id: str
    settings: Dict[str, Any]
    run_config: Optional[RunConfig]
    #: as registered
    serialized_flow: Dict[str, Any]
    #: a newer version has taken its place
    archived: bool
    project_name: str
    #: version of Prefect it was registered with
    core_version: str
    #: where the flow itself is kept
    storage: "prefect.storage.Storage"
    name: str
    #: labels of the flow's group; None if they were never set
    flow_group_labels: Optional[List[str]]

    @property
    def flow(self) -> "prefect.Flow":
        """The flow, as far as the backend knows it: structure and names, but not the code of its tasks."""
        flow: prefect.Flow = FlowSchema().load(self.serialized_flow, partial=True, unknown=marshmallow.EXCLUDE)
        return flow

    def check_parameters(self, given: Mapping[str, Any]) -> None:
        """Refuses parameters for a flow run that the flow lacks, or does not know, which the Prefect API allows.

        Args:
            given: parameter name -> value.

        Raises:
            WrongParameters: (a `ValueError` and `prefect.exceptions.ClientError`).
        """
        declared = self.serialized_flow.get("parameters") or []
        known = {parameter["name"]: parameter.get("required") for parameter in declared}
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise WrongParameters(
                f"Flow {self.name!r} has no parameter {', '.join(map(repr, unknown))}. "
                + (f"It has: {', '.join(sorted(known))}." if known else "It has none.")
            )
        missing = {name for name, is_required in known.items() if is_required and name not in given}
        if missing:
            # asked for only here: few flow groups have any
            group = api.find("flow", {"id": {"_eq": self.flow_id}}, fields="flow_group { default_parameters }")
            missing -= set((group[0]["flow_group"]["default_parameters"] if group else None) or ())
        if missing:
            raise WrongParameters(f"Flow {self.name!r} needs the parameter {', '.join(map(repr, sorted(missing)))}.")

    def get_flow(self) -> "prefect.Flow":
        """The flow itself, with the code of its tasks, loaded from its storage once; the last 32 are kept.

        This runs the user's code, as executing the flow does, and needs what the flow imports.

        Raises:
            Exception: whatever the storage, or the user's code, raises.
        """
        with _loading:
            if self.flow_id not in _flows:
                # as `prefect execute flow-run` does, in prefect 1.4.1's cli/execute.py
                secrets = {name: PrefectSecret(name).run() for name in self.storage.secrets}
                secrets = {**prefect.context.get("secrets", {}), **secrets}
                with prefect.context(secrets=secrets, loading_flow=True):
                    flow = self.storage.get_flow(self.name)
                if len(_flows) >= FLOWS_KEPT:
                    _flows.pop(next(iter(_flows)))
                _flows[self.flow_id] = flow
            return _flows[self.flow_id]

    @classmethod
    def of_flow_run(cls, flow_run_id: str) -> "FlowView":
        """Looks up the flow that a flow run is a run of.

        Raises:
            NotFound: there is no such flow run (a `ValueError`).
        """
        return cls._newest({"flow_runs": {"id": {"_eq": flow_run_id}}}, f"flow of flow run {flow_run_id!r}")

    @classmethod
    def from_id(cls, flow_id: str) -> "FlowView":
        """Looks a flow up by the UUID of the flow or of its flow group.

        Raises:
            NotFound: there is neither (a `ValueError`).
        """
        for lookup in (cls.from_flow_id, cls.from_flow_group_id):
            try:
                return lookup(flow_id)
            except NotFound:
                continue
        raise NotFound(f"Given id {flow_id!r} is not an existing flow or flow group id.")

    @classmethod
    def from_flow_id(cls, flow_id: str) -> "FlowView":
        """Looks a version of a flow up by its UUID.

        Raises:
            TypeError: `flow_id` is not a string.
            NotFound: there is no such flow (a `ValueError`).
        """
        check_text(flow_id=flow_id)
        return cls._newest({"id": {"_eq": flow_id}}, f"flow {flow_id!r}")

    @classmethod
    def from_flow_group_id(cls, flow_group_id: str) -> "FlowView":
        """Looks the newest version of a flow up by the UUID of its flow group.

        Raises:
            TypeError: `flow_group_id` is not a string.
            NotFound: there is no such flow group (a `ValueError`).
        """
        check_text(flow_group_id=flow_group_id)
        return cls._newest({"flow_group_id": {"_eq": flow_group_id}}, f"flow in flow group {flow_group_id!r}")

    @classmethod
    def from_flow_name(cls, flow_name: str, project_name: Optional[str] = "", last_updated: bool = False) -> "FlowView":
        """Looks a flow up by its name, among those that are not archived.

        Args:
            flow_name: the flow's name.
            project_name: its project; ``""`` looks in all projects, None among flows without a project.
            last_updated: take the newest if several fit, instead of raising.

        Raises:
            NotFound: no flow has that name (a `ValueError`).
            Ambiguous: several have, and `last_updated` is false (a `ValueError`).
        """
        check_text(flow_name=flow_name)
        check_kind(str, project_name=project_name)
        where: Dict[str, Any] = {"name": {"_eq": flow_name}, "archived": {"_eq": False}}
        sought = f"flow named {flow_name!r}"
        if project_name != "":
            where["project"] = {"name": {"_eq": project_name} if project_name else {"_is_null": True}}
            sought += f" in project {project_name!r}"
        rows = api.find("flow", where, NEWEST_FIRST)
        if not rows:
            raise NotFound(f"No {sought} was found. Is it registered, and not archived?")
        if len(rows) > 1 and not last_updated:
            projects = sorted(row["project"]["name"] for row in rows)
            raise Ambiguous(
                f"Found multiple flows where one {sought} was looked for, in the projects {projects}. Provide a "
                "`project_name` as well, or toggle `last_updated` to use the flow that was most recently updated."
            )
        return cls._from_flow_data(rows[0])

    @classmethod
    def _newest(cls, where: Dict[str, Any], sought: str) -> "FlowView":
        rows = api.find("flow", where, NEWEST_FIRST, limit=1)
        if not rows:
            raise NotFound(f"No {sought} was found.")
        return cls._from_flow_data(rows[0])

    @classmethod
    def _from_flow_data(cls, row: Dict[str, Any]) -> "FlowView":
        with api.reading("a flow", row):
            return cls._of_row(row)

    @classmethod
    def _of_row(cls, row: Dict[str, Any]) -> "FlowView":
        # objects of Prefect's client, whose items are attributes too
        row = GraphQLResult(row)
        run_config = row["run_config"]
        return cls(
            flow_id=row["id"],
            settings=row["settings"],
            run_config=RunConfigSchema().load(run_config) if run_config else None,
            serialized_flow=row["serialized_flow"],
            archived=row["archived"],
            project_name=row["project"]["name"],
            core_version=row["core_version"],
            storage=StorageSchema().load(row["storage"]),
            name=row["name"],
            flow_group_labels=row["flow_group"]["labels"],
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(flow_id={self.flow_id!r}, name={self.name!r}, "
            f"project_name={self.project_name!r}, storage_type={type(self.storage).__name__})"
        )

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, FlowView):
            return NotImplemented
        # nothing else of a registered version can change
        changeable = ("flow_id", "archived", "settings", "flow_group_labels")
        return all(getattr(self, name) == getattr(other, name) for name in changeable)

    def __hash__(self) -> int:
        return hash(self.flow_id)

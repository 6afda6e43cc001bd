"""A stand-in for Vertex AI Vizier: a gRPC server of the service's own messages that draws its suggestions at random.

Written from google-cloud-aiplatform 1.165.1 (`google/cloud/aiplatform_v1/types/vizier_service.py`).
"""

import concurrent.futures
import contextlib
import math
import random

import grpc
from google.cloud.aiplatform_v1 import VizierServiceClient
from google.cloud.aiplatform_v1.services.vizier_service.transports import VizierServiceGrpcTransport
from google.cloud.aiplatform_v1.types import Study, StudySpec, Trial, vizier_service as messages
from google.longrunning import operations_pb2

Scale = StudySpec.ParameterSpec.ScaleType
PENDING, SUCCEEDED, INFEASIBLE = Trial.State.ACTIVE, Trial.State.SUCCEEDED, Trial.State.INFEASIBLE


class VizierService:
    """Keeps studies by display name and trials by name.

    `refuse`: a status and a message with which every call fails, if set. `outages`: how many of the next calls find the
    service unavailable. `exhausted_after`: how many trials a study can have.
    """

    def __init__(self):
        self.studies, self.trials, self.operations = {}, {}, {}
        self.refuse, self.outages, self.exhausted_after = None, 0, math.inf
        self._random = random.Random(7)

    def create_study(self, request, context):
        study = request.study
        if study.display_name in self.studies:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"Study {study.display_name} already exists")
        for parameter in study.study_spec.parameters:
            if parameter.scale_type == Scale.UNIT_LOG_SCALE and parameter.double_value_spec.min_value <= 0:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{parameter.parameter_id} must be positive")
        study.name = f"{request.parent}/studies/{100 + len(self.studies)}"
        study.state = Study.State.ACTIVE
        self.studies[study.display_name] = study
        return study

    def lookup_study(self, request, context):
        if request.display_name not in self.studies:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Study {request.display_name} not found")
        return self.studies[request.display_name]

    def suggest_trials(self, request, context):
        del context
        trials = self.trials_of(request.parent)
        pending = [trial for trial in trials if trial.state == PENDING and trial.client_id == request.client_id]
        if not pending and len(trials) < self.exhausted_after:
            pending = [self._draw(request.parent, request.client_id)]
        done = operations_pb2.Operation(name=f"{request.parent}/operations/{len(self.operations)}", done=True)
        done.response.Pack(messages.SuggestTrialsResponse.pb(messages.SuggestTrialsResponse(trials=pending[:1])))
        self.operations[done.name] = done
        return operations_pb2.Operation(name=done.name)

    def get_operation(self, request, context):
        del context
        return self.operations[request.name]

    def list_trials(self, request, context):
        """Returns two trials per page, the newest first."""
        del context
        trials, start = self.trials_of(request.parent)[::-1], int(request.page_token or 0)
        following = str(start + 2) if len(trials) > start + 2 else ""
        return messages.ListTrialsResponse(trials=trials[start : start + 2], next_page_token=following)

    def complete_trial(self, request, context):
        trial = self.trials[request.name]
        if trial.state != PENDING:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{request.name} has ended")
        trial.state = INFEASIBLE if request.trial_infeasible else SUCCEEDED
        trial.final_measurement, trial.infeasible_reason = request.final_measurement, request.infeasible_reason
        return trial

    def trials_of(self, study):
        return [trial for trial in self.trials.values() if trial.name.startswith(f"{study}/")]

    def _draw(self, study, client_id):
        number = len(self.trials_of(study)) + 1
        spec = next(kept.study_spec for kept in self.studies.values() if kept.name == study)
        values = [{"parameter_id": item.parameter_id, "value": self._value(item)} for item in spec.parameters]
        name = f"{study}/trials/{number}"
        self.trials[name] = Trial(name=name, id=str(number), state=PENDING, client_id=client_id, parameters=values)
        return self.trials[name]

    def _value(self, parameter):
        if "categorical_value_spec" in parameter:
            return self._random.choice(list(parameter.categorical_value_spec.values))
        if "discrete_value_spec" in parameter:
            return self._random.choice(list(parameter.discrete_value_spec.values))
        if "integer_value_spec" in parameter:
            limits = parameter.integer_value_spec
            return float(self._random.randint(limits.min_value, limits.max_value))
        limits = parameter.double_value_spec
        if parameter.scale_type == Scale.UNIT_LOG_SCALE:
            return math.exp(self._random.uniform(math.log(limits.min_value), math.log(limits.max_value)))
        return self._random.uniform(limits.min_value, limits.max_value)


def _handlers(service):
    def handler(method, deserialize, serialize):
        def call(request, context):
            if service.refuse:
                context.abort(*service.refuse)
            if service.outages:
                service.outages -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "Try again")
            return method(request, context)

        return grpc.unary_unary_rpc_method_handler(call, deserialize, serialize)

    operation = operations_pb2.Operation.SerializeToString
    vizier = {
        "CreateStudy": handler(service.create_study, messages.CreateStudyRequest.deserialize, Study.serialize),
        "LookupStudy": handler(service.lookup_study, messages.LookupStudyRequest.deserialize, Study.serialize),
        "SuggestTrials": handler(service.suggest_trials, messages.SuggestTrialsRequest.deserialize, operation),
        "ListTrials": handler(
            service.list_trials, messages.ListTrialsRequest.deserialize, messages.ListTrialsResponse.serialize
        ),
        "CompleteTrial": handler(service.complete_trial, messages.CompleteTrialRequest.deserialize, Trial.serialize),
    }
    operations = {
        "GetOperation": handler(service.get_operation, operations_pb2.GetOperationRequest.FromString, operation)
    }
    return [
        grpc.method_handlers_generic_handler("google.cloud.aiplatform.v1.VizierService", vizier),
        grpc.method_handlers_generic_handler("google.longrunning.Operations", operations),
    ]


def client_of(port):
    """Returns Google's client, without credentials, of the server on a local port."""
    return VizierServiceClient(transport=VizierServiceGrpcTransport(channel=grpc.insecure_channel(f"localhost:{port}")))


@contextlib.contextmanager
def serving(service):
    """Yields Google's client of `service`, served on a free local port."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2), handlers=_handlers(service))
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        yield client_of(port)
    finally:
        server.stop(None)

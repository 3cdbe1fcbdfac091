"""Which roles may call which rpc. An rpc that has no row here is for administrators alone, until it gets one.

Reading is for operators too, but what a session has learnt is not: it was learnt from its tenant's data.
"""

from __future__ import annotations

from acclimate.runtime.security.caller import Role

ANYONE = frozenset(Role)
TENANTS = frozenset({Role.ADMIN, Role.TENANT})
ADMINS = frozenset({Role.ADMIN})
# A list of every tenant's sessions at once.
EVERY_TENANT = ADMINS
# What one model does for all tenants together.
WATCHERS = frozenset({Role.ADMIN, Role.OPERATOR})

OIP = "/inference.GRPCInferenceService/"
SESSIONS = "/acclimate.v1.SessionService/"
GENERATION = "/acclimate.v1.GenerationService/"
SERVER = "/acclimate.v1.ServerService/"
HEALTH = "/grpc.health.v1.Health/"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/"

# Whoever supervises the daemon asks these, and has no token; they tell whether it works and nothing else.
OPEN = frozenset({HEALTH + "Check", HEALTH + "Watch", HEALTH + "List", OIP + "ServerLive", OIP + "ServerReady"})

RPCS: dict[str, frozenset[Role]] = {
    OIP + "ModelReady": ANYONE,
    OIP + "ServerMetadata": ANYONE,
    OIP + "ModelMetadata": ANYONE,
    OIP + "ModelInfer": TENANTS,
    OIP + "ModelStreamInfer": TENANTS,
    OIP + "ModelConfig": ANYONE,
    OIP + "ModelStatistics": WATCHERS,
    OIP + "RepositoryIndex": ANYONE,
    OIP + "RepositoryModelLoad": ADMINS,
    OIP + "RepositoryModelUnload": ADMINS,
    SESSIONS + "CreateSession": TENANTS,
    SESSIONS + "CreateSessions": TENANTS,
    SESSIONS + "GetSession": ANYONE,
    SESSIONS + "ListSessions": ANYONE,
    SESSIONS + "DeleteSession": TENANTS,
    SESSIONS + "ResetSession": TENANTS,
    SESSIONS + "ExportSession": TENANTS,
    SESSIONS + "WatchSessions": ANYONE,
    SESSIONS + "SendFeedback": TENANTS,
    SESSIONS + "UpdateSession": TENANTS,
    SESSIONS + "PauseSession": TENANTS,
    SESSIONS + "ResumeSession": TENANTS,
    SESSIONS + "ForkSession": TENANTS,
    SESSIONS + "SnapshotSession": TENANTS,
    SESSIONS + "GetSnapshot": ANYONE,
    SESSIONS + "ListSnapshots": ANYONE,
    SESSIONS + "DeleteSnapshot": TENANTS,
    SESSIONS + "RestoreSession": TENANTS,
    GENERATION + "Generate": TENANTS,
    GENERATION + "Learn": TENANTS,
    GENERATION + "Score": TENANTS,
    SERVER + "GetServerInfo": ANYONE,
    REFLECTION + "ServerReflectionInfo": ANYONE,
}


def allowed(method: str, role: Role) -> bool:
    """Whether `role` may call `method`, `/package.Service/Method`."""
    return role in RPCS.get(method, ADMINS)

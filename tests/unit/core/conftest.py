from hypothesis import HealthCheck, settings

# How long an example takes says more about what else the machine is doing than about the rule under test.
settings.register_profile("pure", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pure")

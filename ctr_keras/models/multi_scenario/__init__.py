"""Models of several scenarios: shared parts, and a tower for each."""

from ctr_keras.models.multi_scenario.mmoe import MMoE
from ctr_keras.models.multi_scenario.ple import PLE
from ctr_keras.models.multi_scenario.scenario_dnn import ScenarioDNN
from ctr_keras.models.multi_scenario.shared_bottom import SharedBottom

__all__ = ["MMoE", "PLE", "ScenarioDNN", "SharedBottom"]

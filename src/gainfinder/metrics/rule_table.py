"""The rules of `rules.py`, fitted. Written by `python -m benchmarks.ranking.evaluate`, never by hand."""

from .rules import FittedRule, RuleScore, RuleTable

# fmt: off
TABLES = (
    RuleTable(
        source="default, trained (benchmarks/moving/pairs.csv)",
        transfers=10,
        students=8,
        teachers=5,
        labelled=True,
        rules=(
            FittedRule(
                name="accuracy",
                coefficients=(
                    ('delta_acc_pp', 0.17664),
                ),
                intercept=4.27786,
                ranges=(
                    ('delta_acc_pp', -18.8535, 22.5676),
                ),
                error_pp=3.00862,
            ),
            FittedRule(
                name="headroom",
                coefficients=(
                    ('headroom_pp', 0.444686),
                ),
                intercept=0.0,
                ranges=(
                    ('headroom_pp', 0.746871, 23.1126),
                ),
                error_pp=4.63151,
            ),
            FittedRule(
                name="flips",
                coefficients=(
                    ('positive_flips_pp', 0.319022),
                ),
                intercept=0.0,
                ranges=(
                    ('positive_flips_pp', 6.7824, 29.3904),
                ),
                error_pp=3.44119,
            ),
            FittedRule(
                name="target",
                coefficients=(
                    ('target_headroom_pp', 0.428058),
                ),
                intercept=0.0,
                ranges=(
                    ('target_headroom_pp', 1.29189, 24.1421),
                ),
                error_pp=5.11799,
            ),
            FittedRule(
                name="partition",
                coefficients=(
                    ('taught_positive_pp', 0.291216),
                    ('taught_negative_pp', -0.575562),
                ),
                intercept=3.69285,
                ranges=(
                    ('taught_positive_pp', 0.9891, 28.5628),
                    ('taught_negative_pp', 0.504643, 5.69237),
                ),
                error_pp=5.47279,
            ),
            FittedRule(
                name="balance",
                coefficients=(
                    ('positive_flips_pp', 0.229112),
                    ('negative_flips_pp', -0.138728),
                    ('agreement', 7.54758),
                ),
                intercept=-1.9518,
                ranges=(
                    ('positive_flips_pp', 6.7824, 29.3904),
                    ('negative_flips_pp', 5.28866, 25.6358),
                    ('agreement', 0.560961, 0.822971),
                ),
                error_pp=3.84885,
            ),
            FittedRule(
                name="calibrated",
                coefficients=(
                    ('headroom_pp', 0.173201),
                    ('student_overconfidence_pp', -0.0966418),
                    ('teacher_overconfidence_pp', 0.121677),
                ),
                intercept=2.96881,
                ranges=(
                    ('headroom_pp', 0.746871, 23.1126),
                    ('student_overconfidence_pp', -4.78919, 12.8052),
                    ('teacher_overconfidence_pp', -2.96477, 12.8052),
                ),
                error_pp=6.8752,
            ),
        ),
        scores=(
            RuleScore(
                name="accuracy",
                students=2,
                regret_pp=0.0,
                regret_ci_pp=(0.0, 0.0),
                correlation=None,
                correlation_ci=None,
                over_all=0.624242,
                beats_baseline=False,
            ),
            RuleScore(
                name="headroom",
                students=2,
                regret_pp=0.0,
                regret_ci_pp=(0.0, 0.0),
                correlation=None,
                correlation_ci=None,
                over_all=0.672727,
                beats_baseline=False,
            ),
            RuleScore(
                name="flips",
                students=2,
                regret_pp=0.0,
                regret_ci_pp=(0.0, 0.0),
                correlation=None,
                correlation_ci=None,
                over_all=0.612121,
                beats_baseline=False,
            ),
            RuleScore(
                name="target",
                students=2,
                regret_pp=0.0,
                regret_ci_pp=(0.0, 0.0),
                correlation=None,
                correlation_ci=None,
                over_all=0.684848,
                beats_baseline=False,
            ),
            RuleScore(
                name="partition",
                students=2,
                regret_pp=0.0,
                regret_ci_pp=(0.0, 0.0),
                correlation=None,
                correlation_ci=None,
                over_all=0.127273,
                beats_baseline=False,
            ),
            RuleScore(
                name="balance",
                students=2,
                regret_pp=0.0,
                regret_ci_pp=(0.0, 0.0),
                correlation=None,
                correlation_ci=None,
                over_all=0.612121,
                beats_baseline=False,
            ),
            RuleScore(
                name="calibrated",
                students=2,
                regret_pp=0.0,
                regret_ci_pp=(0.0, 0.0),
                correlation=None,
                correlation_ci=None,
                over_all=0.430303,
                beats_baseline=False,
            ),
            RuleScore(
                name="random",
                students=2,
                regret_pp=4.38962,
                regret_ci_pp=(3.75545, 5.02378),
                correlation=None,
                correlation_ci=None,
                over_all=None,
                beats_baseline=False,
            ),
        ),
    ),
    RuleTable(
        source="default, trained (benchmarks/moving/pairs.csv)",
        transfers=10,
        students=8,
        teachers=5,
        labelled=False,
        rules=(
            FittedRule(
                name="accuracy",
                coefficients=(
                    ('delta_acc_pp', 0.22314),
                ),
                intercept=4.29748,
                ranges=(
                    ('delta_acc_pp', -14.6783, 18.7048),
                ),
                error_pp=2.82855,
            ),
            FittedRule(
                name="headroom",
                coefficients=(
                    ('headroom_pp', 0.502675),
                ),
                intercept=0.0,
                ranges=(
                    ('headroom_pp', 1.78887, 20.8653),
                ),
                error_pp=3.82125,
            ),
            FittedRule(
                name="flips",
                coefficients=(
                    ('positive_flips_pp', 0.320462),
                ),
                intercept=0.0,
                ranges=(
                    ('positive_flips_pp', 8.20143, 28.6799),
                ),
                error_pp=3.22394,
            ),
            FittedRule(
                name="target",
                coefficients=(
                    ('target_headroom_pp', 0.441703),
                ),
                intercept=0.0,
                ranges=(
                    ('target_headroom_pp', 2.08743, 24.0603),
                ),
                error_pp=4.63905,
            ),
            FittedRule(
                name="partition",
                coefficients=(
                    ('taught_positive_pp', 0.308089),
                    ('taught_negative_pp', -0.303197),
                ),
                intercept=2.68306,
                ranges=(
                    ('taught_positive_pp', 1.40737, 28.2332),
                    ('taught_negative_pp', 0.225286, 8.91842),
                ),
                error_pp=12.0852,
            ),
            FittedRule(
                name="balance",
                coefficients=(
                    ('positive_flips_pp', 0.271613),
                    ('negative_flips_pp', -0.185486),
                    ('agreement', 6.26919),
                ),
                intercept=-1.1071,
                ranges=(
                    ('positive_flips_pp', 8.20143, 28.6799),
                    ('negative_flips_pp', 6.69798, 24.6732),
                    ('agreement', 0.560961, 0.822971),
                ),
                error_pp=3.78417,
            ),
            FittedRule(
                name="calibrated",
                coefficients=(
                    ('headroom_pp', 0.233313),
                    ('student_overconfidence_pp', -0.0652774),
                    ('teacher_overconfidence_pp', 0.0810707),
                ),
                intercept=2.71589,
                ranges=(
                    ('headroom_pp', 1.78887, 20.8653),
                    ('student_overconfidence_pp', -12.284, 10.0005),
                    ('teacher_overconfidence_pp', -9.64235, 10.0005),
                ),
                error_pp=7.7186,
            ),
        ),
        scores=(
            RuleScore(
                name="accuracy",
                students=2,
                regret_pp=0.0,
                regret_ci_pp=(0.0, 0.0),
                correlation=None,
                correlation_ci=None,
                over_all=0.69697,
                beats_baseline=False,
            ),
            RuleScore(
                name="headroom",
                students=2,
                regret_pp=0.0,
                regret_ci_pp=(0.0, 0.0),
                correlation=None,
                correlation_ci=None,
                over_all=0.721212,
                beats_baseline=False,
            ),
            RuleScore(
                name="flips",
                students=2,
                regret_pp=0.0,
                regret_ci_pp=(0.0, 0.0),
                correlation=None,
                correlation_ci=None,
                over_all=0.575758,
                beats_baseline=False,
            ),
            RuleScore(
                name="target",
                students=2,
                regret_pp=0.0,
                regret_ci_pp=(0.0, 0.0),
                correlation=None,
                correlation_ci=None,
                over_all=0.684848,
                beats_baseline=False,
            ),
            RuleScore(
                name="partition",
                students=2,
                regret_pp=0.0,
                regret_ci_pp=(0.0, 0.0),
                correlation=None,
                correlation_ci=None,
                over_all=0.551515,
                beats_baseline=False,
            ),
            RuleScore(
                name="balance",
                students=2,
                regret_pp=0.0,
                regret_ci_pp=(0.0, 0.0),
                correlation=None,
                correlation_ci=None,
                over_all=0.648485,
                beats_baseline=False,
            ),
            RuleScore(
                name="calibrated",
                students=2,
                regret_pp=0.0,
                regret_ci_pp=(0.0, 0.0),
                correlation=None,
                correlation_ci=None,
                over_all=0.381818,
                beats_baseline=False,
            ),
            RuleScore(
                name="random",
                students=2,
                regret_pp=4.38962,
                regret_ci_pp=(3.75545, 5.02378),
                correlation=None,
                correlation_ci=None,
                over_all=None,
                beats_baseline=False,
            ),
        ),
    ),
)
"""Of features by labels, and without labels."""
# fmt: on

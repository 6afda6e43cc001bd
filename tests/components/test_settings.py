from components.settings import LOCAL_BEAM_ARGS


def test_tfx_packs_no_code_for_workers_on_this_machine():
    from tfx.utils import dependency_utils

    assert dependency_utils.make_beam_dependency_flags(list(LOCAL_BEAM_ARGS)) == list(LOCAL_BEAM_ARGS)

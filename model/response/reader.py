from model.response.format import Opened
class ResponseReader:
    pass
def initial_state(form, prompt):
    return Opened.NOTHING

def check_packages(): pass
def write(run, space, folder): return None
def load_text(run, d): return ""

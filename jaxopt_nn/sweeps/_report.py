def write_report(sweep, path, title):
    raise NotImplementedError

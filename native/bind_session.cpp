// bind_session.cpp: Python face of the session (session.h, decode.h).
#include "bind.h"

void bind_session(nanobind::module_ &) {}

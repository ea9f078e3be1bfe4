"""`halvard simulate`: a study on recorded learning curves in virtual time, decided by the same code as a real one."""

-- The sandboxes of ended orders are taken away every hour.

INSERT INTO awo.schedules (name, expression, kind, queue, skip_while_open) VALUES
    ('sandbox_retention', '23 * * * *', 'sandbox_retention', 'maintenance', true)
ON CONFLICT DO NOTHING;

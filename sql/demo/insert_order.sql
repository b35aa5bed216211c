INSERT INTO agent_work_orders (repository_url, user_request) VALUES ($1, $2)
RETURNING agent_work_order_id

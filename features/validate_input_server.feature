Feature: Judge documents over HTTP
  Whoever judges many documents does not want to start a program for each of them. A service compiles
  the policy once and says about every document that it is sent what the command would say.

  Background:
    Given a policy with the rule:
      """
      package pipeline

      # METADATA
      # title: Pinned tasks
      # custom:
      #   short_name: pinned
      deny contains result if {
      	some task in input.spec.tasks
      	not task.taskRef.version
      	result := {"code": "pipeline.pinned", "msg": sprintf("Task %s has no version", [task.name])}
      }
      """
    And a service that judges documents

  Scenario: A document that breaks a rule
    When the service is sent as "application/json":
      """
      {"spec": {"tasks": [{"name": "build", "taskRef": {"name": "build"}}]}}
      """
    Then the service answers with 200 and "fail"
    And the report has the violation "pipeline.pinned" because "Task build has no version"

  Scenario: A document that breaks none, as YAML
    When the service is sent as "application/yaml":
      """
      spec: {tasks: [{name: init, taskRef: {name: init, version: "0.1"}}]}
      """
    Then the service answers with 200 and "pass"

  Scenario: Something else than a document
    When the service is sent as "text/plain":
      """
      Dear Sir or Madam
      """
    Then the service answers with 400
    And the answer says "request body is not valid JSON or YAML"

  Scenario: It ends when it is told to
    When the service is told to stop
    Then the exit status is 0
